"""What an operation asks the account, as pyinfra facts."""
