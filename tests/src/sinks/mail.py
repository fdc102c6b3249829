"""server.py PORT DIR [protected]: keeps every mail as DIR/mails/NUMBER.json, and only then says that it has it."""

import email
import email.policy
import itertools
import json
import os
import signal
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

port, directory, protected = int(sys.argv[1]), sys.argv[2], len(sys.argv) > 3
mails = os.path.join(directory, "mails")
numbers = itertools.count(len(os.listdir(mails)))


class Keep:
    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        body = message.get_body(preferencelist=("plain",))
        kept = {
            "to": ",".join(envelope.rcpt_tos),
            "login": getattr(session, "auth_data", None) or "",
            "encrypted": session.ssl is not None,
            "subject": message["subject"],
            "id": message["message-id"],
            "text": body.get_content(),
            "attachments": [{"name": a.get_filename(), "text": a.get_content()} for a in message.iter_attachments()],
        }
        path = os.path.join(mails, f"{next(numbers):06}")
        with open(path + ".new", "w") as file:
            json.dump(kept, file)
        os.rename(path + ".new", path + ".json")
        return "250 kept"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"


def login(server, session, envelope, mechanism, data):
    good = data.login == b"purge" and data.password == b"pass word"
    return AuthResult(success=good, auth_data="purge" if good else None)


class Server(Controller):
    def factory(self):
        if not protected:
            return SMTP(self.handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem"))
        return SMTP(
            self.handler,
            tls_context=context,
            require_starttls=True,
            authenticator=login,
            auth_required=True,
        )


server = Server(Keep(), hostname="127.0.0.1", port=port)
server.start()
signal.sigwait([signal.SIGTERM, signal.SIGINT])
server.stop()
