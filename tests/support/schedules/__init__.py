"""Random schedules of calls and ends: see __main__.py and test_schedules.py."""
