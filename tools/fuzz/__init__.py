"""Coverage-guided fuzzing (atheris) of what reads bytes that others wrote: ``make fuzz``.

A target is a function from bytes to nothing that raises where a promise is broken. The seeds lie in
``tools/fuzz/seeds/TARGET``; test_fuzz_seeds.py holds them without atheris.
"""
