"""The commands of the library. Each is a console script: `lcrl-train` is `lcrl.commands.train`."""
