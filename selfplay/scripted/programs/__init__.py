"""Programs that scripted agents write into their sandbox and run there; never imported."""
