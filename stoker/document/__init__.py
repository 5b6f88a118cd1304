"""Job files as text: reading, composing, validating, explaining, and reporting what is wrong with them."""
