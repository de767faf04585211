"""Settings, and the processes of `editlab serve`."""
