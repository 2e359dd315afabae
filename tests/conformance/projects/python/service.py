import bottle

bottle.route("/boats/<name>")(lambda name: {"boat": name})
bottle.run(host="0.0.0.0", port=8080, quiet=True)
