"""What knows a language: functions, tests, text between them."""
