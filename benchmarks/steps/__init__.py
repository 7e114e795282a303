"""Training steps to be timed, one file each; the file's name is the step's."""
