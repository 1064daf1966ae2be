"""Diffusion: a chain that only adds noise, its bound, and the networks that undo it.

Steps are t = 1..T and the datum is :math:`x_0`. Every tensor with a value for each step has
length T + 1 and is indexed by t itself. Import the modules by name::

    from evidence.diffusion import bound, exact, process, schedule
"""
