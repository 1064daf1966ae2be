"""Helper code of the book *Evidence: from autoencoders to diffusion, derived and executed*."""
