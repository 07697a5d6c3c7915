"""For the tests of plugins: contracts that a plugin's classes are held to, tiny models and tiny data.

The contracts are pytest classes: import them from the submodules, subclass them and set their attributes.
"""
