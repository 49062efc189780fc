"""What goes into the sandbox, standard library and pytest only: values as text, the two tracers,
the plugin that records tests, and the program that checks questions."""
