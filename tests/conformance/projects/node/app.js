const ms = require("ms");
require("http").createServer((request, reply) => reply.end(`${ms("2 days")}\n`)).listen(8080);
