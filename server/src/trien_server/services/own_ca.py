"""Everything of the installation's own CA, built together."""

from dataclasses import dataclass
from datetime import timedelta

from trien_server.core.ports import Clock, Hsm, ListPublication, Randomness, Report
from trien_server.services.certificate_authorities import CertificateAuthorities
from trien_server.services.certificate_issuance import CertificateIssuance
from trien_server.services.changes import Changes
from trien_server.services.issued_certificates import (
    GetIssuedCertificate,
    IssueCertificate,
    ListIssuedCertificates,
    RevokeIssuedCertificate,
)
from trien_server.services.key_generation import KeyGeneration
from trien_server.services.leases import Leases
from trien_server.services.proposals import Proposals
from trien_server.services.revocation_lists import ListPublisher, RevocationLists
from trien_server.services.transactions import Transactions


@dataclass(frozen=True, kw_only=True)
class OwnCaSettings:
    """Where revocation lists go, where they can be fetched, and how often they are made."""

    publication: ListPublication | None = None
    crl_url: str | None = None
    list_valid_for: timedelta = timedelta(days=7)
    list_every: timedelta = timedelta(days=1)


class OwnCa:
    """The use cases and workers of the installation's own CA; without one they refuse, and have nothing to do."""

    def __init__(
        self,
        *,
        transactions: Transactions,
        changes: Changes,
        proposals: Proposals,
        generation: KeyGeneration,
        leases: Leases,
        hsm: Hsm,
        clock: Clock,
        randomness: Randomness,
        report: Report,
        settings: OwnCaSettings,
    ) -> None:
        self.authorities = CertificateAuthorities(
            transactions=transactions,
            changes=changes,
            proposals=proposals,
            generation=generation,
            hsm=hsm,
            clock=clock,
            randomness=randomness,
        )
        self.issuance = CertificateIssuance(
            hsm=hsm, transactions=transactions, changes=changes, clock=clock, report=report
        )
        self.lists = RevocationLists(
            hsm=hsm, transactions=transactions, changes=changes, clock=clock, valid_for=settings.list_valid_for
        )
        self.publisher = None
        if settings.publication is not None:
            self.publisher = ListPublisher(
                lists=self.lists,
                publication=settings.publication,
                transactions=transactions,
                leases=leases,
                clock=clock,
                report=report,
                every=settings.list_every,
            )
        self._crl_url = settings.crl_url
        self.issue = IssueCertificate(
            transactions=transactions,
            proposals=proposals,
            randomness=randomness,
            crl_url=self._url_of,
            approved=self.issuance.ask,
        )
        self.get = GetIssuedCertificate(transactions=transactions)
        self.list_ = ListIssuedCertificates(transactions=transactions)
        self.revoke = RevokeIssuedCertificate(changes=changes, clock=clock, revoked=self.revoked)

    def revoked(self) -> None:
        """Has the next revocation list made at once, where lists are published by this process."""
        if self.publisher is not None:
            self.publisher.ask()

    def start(self) -> None:
        """Starts the workers."""
        self.issuance.start()
        if self.publisher is not None:
            self.publisher.start()

    def stop(self) -> None:
        """Stops the workers, each behind what it is at."""
        self.issuance.stop()
        if self.publisher is not None:
            self.publisher.stop()

    def _url_of(self, authority: str) -> str | None:
        if self._crl_url is None:
            return None
        return f"{self._crl_url.rstrip('/')}/{authority.rpartition('/')[2]}.crl"
