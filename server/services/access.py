"""What each method asks of a key: the scope, and where in the request its router stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from policy.domain import DEFAULT_ROUTER
from server.keys import Scope

_DATA_PLANE = "/pointsman.v1.RouterService/"
_REGISTRY = "/pointsman.v1.RegistryService/"
_POLICIES = "/pointsman.v1.PolicyService/"


@dataclass(frozen=True, slots=True)
class Access:
    """Any of the `scopes` is enough. `router` is the path of the field that names the router, empty if none does.

    Where it is a decision that tells the router, or the answer is a list of routers, the handler looks at
    `permitted_routers`: what a key may not touch is then not there.
    """

    scopes: frozenset[Scope]
    router: str = ""

    def router_of(self, request: Any) -> str | None:
        """The id of the router that the request is about; None if that is not in it.

        Of a name that is none, the name: no key has such a router, and one without routers hears what is wrong.
        """
        if not self.router:
            return None
        name: str = attrgetter(self.router)(request)
        return name.removeprefix("routers/").partition("/")[0] if name else DEFAULT_ROUTER


def _of(prefix: str, scopes: frozenset[Scope], **routers: str) -> dict[str, Access]:
    return {prefix + method: Access(scopes, router) for method, router in routers.items()}


_ROUTES = frozenset({Scope.ROUTE})
_REPORTS = frozenset({Scope.REPORT})
_ADMINISTERS = frozenset({Scope.ADMINISTER})

ANY_SCOPE = Access(frozenset(Scope))

METHODS: Mapping[str, Access] = {
    **_of(_DATA_PLANE, _ROUTES, Route="router"),
    **_of(_DATA_PLANE, _REPORTS, ReportReward="", BatchReportRewards=""),
    # Who asked ahead says that it was used; who reports may know it, too.
    **_of(_DATA_PLANE, _ROUTES | _REPORTS, ActivateDecision=""),
    # Who routes sent what is in it, and knows its id.
    **_of(_DATA_PLANE, _ROUTES | _ADMINISTERS, GetDecision=""),
    **_of(_DATA_PLANE, _ADMINISTERS, ImportDecisions="router"),
    **_of(
        _REGISTRY,
        _ADMINISTERS,
        CreateRouter="router_id",
        GetRouter="name",
        ListRouters="",
        GetHistory="name",
        UpdateRouter="router.name",
        DeleteRouter="name",
        CreateModel="parent",
        GetModel="name",
        ListModels="parent",
        UpdateModel="model.name",
        DeleteModel="name",
    ),
    **_of(
        _POLICIES,
        _ADMINISTERS,
        CreatePolicy="parent",
        GetPolicy="name",
        ListPolicies="parent",
        RetirePolicy="name",
        PromotePolicy="name",
        GetPromotionSettings="name",
        UpdatePromotionSettings="promotion_settings.name",
        ListTransitions="parent",
        ListSnapshots="parent",
        ExportSnapshot="name",
        ImportSnapshot="parent",
        RestoreSnapshot="name",
        GetEvaluation="router",
    ),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": ANY_SCOPE,
}
"""Every method that is served, but health. A test holds it to that; what is missing here is refused."""
