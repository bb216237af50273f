"""The commands of `edgechoir`, one file each."""
