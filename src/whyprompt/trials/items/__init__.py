"""Where items come from: generators, files, hub data sets."""
