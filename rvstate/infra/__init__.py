"""The pyinfra door: connector, facts, operations, deploys, engine; nothing else imports pyinfra."""
