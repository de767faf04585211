"""What can be asked of the guard."""

OFF, WARN, REFUSE, R_ROME = CHOICES = ("off", "warn", "refuse", "r-rome")
