"""The control plane: FastAPI, SQLModel, the scheduler, the Celery producer. It never imports torch."""
