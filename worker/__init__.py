"""The data plane: Celery consumer, run agent, trainer. It never touches the database."""
