"""The figures that follow from a summary's message, for people and for programs.

The SDK's classes are these, and the server's JSON is made of them: one definition of each figure.
"""
