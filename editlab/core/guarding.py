"""The choices of the guard: what to do with a risky edit."""

OFF, WARN, REFUSE, R_ROME = CHOICES = ("off", "warn", "refuse", "r-rome")
