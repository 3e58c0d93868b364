"""Packages for the function, from what is wanted to a call that imports them."""
