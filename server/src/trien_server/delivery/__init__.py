"""How one-time passwords reach people: by a mail server (SMTP), and by an SMS gateway (a signed webhook)."""

from trien_server.delivery.lines import verifying_context
from trien_server.delivery.smtp import SmtpDelivery, SmtpTls
from trien_server.delivery.webhook import WebhookDelivery, signing_key

__all__ = ["SmtpDelivery", "SmtpTls", "WebhookDelivery", "signing_key", "verifying_context"]
