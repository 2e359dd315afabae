"""The `sampan` command: Docker's commands, tables, words and exit codes; knows the daemon only by HTTP.

main.py starts (and imports next to nothing), commands.py is the table of commands, options.py reads a command line,
a file for each command does it.  Modules are loaded when their command is called: starting fast is a promise.
"""
