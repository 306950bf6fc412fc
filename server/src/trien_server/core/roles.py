"""What each role may do: the one table of administrative permissions. Deny by default.

A method that is not here can be called by no operator. Clients and signers are no operators: what they may call is
in `CLIENT_METHODS` and `ENROLMENT_METHODS`.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum


class Role(StrEnum):
    """What an operator is trusted with."""

    SECURITY_OFFICER = "SECURITY_OFFICER"
    REGISTRATION_OFFICER = "REGISTRATION_OFFICER"
    AUDITOR = "AUDITOR"
    ADMINISTRATOR = "ADMINISTRATOR"
    MONITOR = "MONITOR"


_SECURITY = frozenset({Role.SECURITY_OFFICER})
_REGISTRATION = frozenset({Role.REGISTRATION_OFFICER})
_OFFICERS = _SECURITY | _REGISTRATION
_READERS = _OFFICERS | {Role.AUDITOR}
_ALL_READERS = _READERS | {Role.ADMINISTRATOR}

PERMISSIONS: Mapping[str, frozenset[Role]] = {
    "AccessService.CreateClient": _SECURITY,
    "AccessService.UpdateClient": _SECURITY,
    "AccessService.RestrictClient": _SECURITY | {Role.ADMINISTRATOR},
    "AccessService.GetClient": _SECURITY | {Role.AUDITOR, Role.ADMINISTRATOR},
    "AccessService.ListClients": _SECURITY | {Role.AUDITOR, Role.ADMINISTRATOR},
    "AccessService.DisableClient": _SECURITY | {Role.ADMINISTRATOR},
    "AccessService.EnableClient": _SECURITY,
    "AccessService.CreateOperator": _SECURITY,
    "AccessService.UpdateOperator": _SECURITY,
    "AccessService.GetOperator": _SECURITY | {Role.AUDITOR},
    "AccessService.ListOperators": _SECURITY | {Role.AUDITOR},
    "AccessService.DisableOperator": _SECURITY,
    "AccessService.EnableOperator": _SECURITY,
    "AccessService.ShowAccess": _SECURITY | {Role.AUDITOR, Role.ADMINISTRATOR},
    "AuditService.GetAuditEntry": _SECURITY | {Role.AUDITOR},
    "AuditService.ListAuditEntries": _SECURITY | {Role.AUDITOR},
    "AuditService.GetReceipt": _SECURITY | {Role.AUDITOR},
    "AuditService.GetEvidence": _SECURITY | {Role.AUDITOR},
    "AuditService.GetCheckpoint": _ALL_READERS,
    "AuditService.GetConsistencyProof": _ALL_READERS,
    "AuditService.GetLogKeys": _ALL_READERS,
    "AuditService.EraseAuditDetails": _SECURITY,
    "CredentialService.GetCredential": _ALL_READERS,
    "CredentialService.ListCredentials": _ALL_READERS,
    "CredentialService.CreateCredential": _REGISTRATION,
    "CredentialService.RenewCredential": _REGISTRATION,
    "CredentialService.UpdateCredential": _REGISTRATION,
    "CredentialService.RestrictCredential": _OFFICERS,
    "CredentialService.SuspendCredential": _OFFICERS,
    "CredentialService.ResumeCredential": _REGISTRATION,
    "CredentialService.RevokeCredential": _OFFICERS,
    "CredentialService.IssueCertificate": _SECURITY,
    "CredentialService.GetIssuedCertificate": _READERS,
    "CredentialService.ListIssuedCertificates": _READERS,
    "CredentialService.RevokeIssuedCertificate": _OFFICERS,
    "CredentialService.GenerateCertificateSigningRequest": _OFFICERS,
    "KeyService.CreateKey": _OFFICERS,
    "KeyService.GetKey": _ALL_READERS,
    "KeyService.ListKeys": _ALL_READERS,
    "KeyService.DisableKey": _SECURITY,
    "KeyService.EnableKey": _SECURITY,
    "KeyService.DestroyKey": _SECURITY,
    "KeyService.CancelKeyDestruction": _SECURITY,
    "KeyService.RotateInstallationKey": _SECURITY,
    "KeyService.ListInstallationKeys": _SECURITY | {Role.AUDITOR, Role.ADMINISTRATOR},
    "OrganizationService.CreateOrganization": _REGISTRATION,
    "OrganizationService.UpdateOrganization": _REGISTRATION,
    "OrganizationService.GetOrganization": _ALL_READERS | {Role.MONITOR},
    "OrganizationService.ListOrganizations": _ALL_READERS | {Role.MONITOR},
    "ProposalService.GetProposal": _READERS,
    "ProposalService.ListProposals": _READERS,
    "ProposalService.ApproveProposal": _OFFICERS,
    "ProposalService.RejectProposal": _OFFICERS,
    "ProposalService.CancelProposal": _OFFICERS,
    "SignerService.CreateSigner": _REGISTRATION,
    "SignerService.GetSigner": _READERS,
    "SignerService.ListSigners": _READERS,
    "SignerService.UpdateSigner": _REGISTRATION,
    "SignerService.ImportSigners": _REGISTRATION,
    "SignerService.DisableSigner": _OFFICERS,
    "SignerService.EnableSigner": _REGISTRATION,
    "SignerService.ListSignatureUses": _SECURITY | {Role.AUDITOR},
    "SignerService.CreateAuthenticator": _REGISTRATION,
    "SignerService.ListAuthenticators": _READERS,
    "SignerService.DisableAuthenticator": _OFFICERS,
    "SignerService.CreateEnrolments": _REGISTRATION,
    "SignerService.GetEnrolment": _READERS,
    "SignerService.ListEnrolments": _READERS,
    "SignerService.SendEnrolmentCode": _REGISTRATION,
    "SignerService.CancelEnrolment": _REGISTRATION,
    "SignerService.UnlockSigner": _REGISTRATION,
}
"""Which roles may call a method. Whoever may call one that makes a proposal may decide on another's."""

HOST_PROPOSALS: Mapping[str, frozenset[Role]] = {
    "Host.CreateCertificateAuthority": _SECURITY,
}
"""What only the server's own command line proposes, and which roles may decide on it. No rpc has these names."""

CLIENT_METHODS = frozenset(
    {
        "AccessService.ShowAccess",
        "AuditService.GetCheckpoint",
        "AuditService.GetConsistencyProof",
        "AuditService.GetEvidence",
        "AuditService.GetLogKeys",
        "AuditService.GetReceipt",
        "AuthorizationService.ApproveAuthorizations",
        "AuthorizationService.CreateAuthorization",
        "AuthorizationService.CreateChallenge",
        "AuthorizationService.DenyAuthorization",
        "AuthorizationService.FetchSignatureActivationData",
        "AuthorizationService.GetAuthorization",
        "AuthorizationService.ListAuthorizations",
        "AuthorizationService.SendOneTimePassword",
        "AuthorizationService.WaitAuthorization",
        "CredentialService.GetCredential",
        "CredentialService.ListCredentials",
        "SignerService.FreezeSigner",
        "SignerService.ListSignatureUses",
        "SignerService.SetSignatureNotices",
        "SigningService.SignDigests",
    }
)
"""What a calling application may call, unless its scope is narrower."""

ENROLMENT_METHODS = frozenset({"SignerService.BeginEnrolment", "SignerService.ConfirmEnrolment"})
"""What who shows an enrolment code may call."""

PROPOSING_ROLES = _OFFICERS
"""The roles whose proposals need a second holder of the same role."""

_ALONE = frozenset({Role.AUDITOR})
_APART = (frozenset({Role.SECURITY_OFFICER, Role.ADMINISTRATOR}),)


def may(roles: Iterable[str], method: str) -> bool:
    """Tells whether one of the roles may call a method, or decide on what the host proposed by it."""
    allowed = PERMISSIONS.get(method) or HOST_PROPOSALS.get(method, frozenset())
    return not allowed.isdisjoint(roles)


def combination_fault(roles: Iterable[Role]) -> str | None:
    """Returns what forbids one person to have these roles together, or None.

    Who audits has no part in what is audited, and who runs the machine does not run the keys (EN 419 241-1 keeps
    the same roles apart).
    """
    held = frozenset(roles)
    if not held:
        return "an operator has at least one role"
    if held & _ALONE and len(held) > 1:
        return "an auditor has no other role"
    for apart in _APART:
        if apart <= held:
            return f"nobody is both {' and '.join(sorted(apart))}"
    return None
