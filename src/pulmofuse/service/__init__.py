"""The service: REST, page, keys and the audit trail."""

from pulmofuse.service.app import create_app
from pulmofuse.service.database import open_database
from pulmofuse.service.explaining import explain_answer
from pulmofuse.service.run import serve
from pulmofuse.service.settings import ServiceSettings
from pulmofuse.service.trail import Trail

__all__ = ["ServiceSettings", "Trail", "create_app", "explain_answer", "open_database", "serve"]
