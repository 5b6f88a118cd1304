"""What follows from a spec by arithmetic or by default. Plan, rules, server and trainer take it from here."""
