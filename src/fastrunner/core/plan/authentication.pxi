"""Stages 2 and 5: how a task's calls prove who calls: a policy of the document, built once and rendered with secrets.

Rules: a policy is rendered when its effect starts and is in no capsule and no snapshot. What a secret holds is data:
nothing in it is evaluated. Which fields a scheme needs beside what shapes say is for whoever speaks it.
"""

cimport cython


@cython.final
@cython.internal
cdef class Authentication:
    """One policy at one task: its own fields, or the secret that has them."""

    cdef str scheme
    cdef str secret
    cdef Template fields
    cdef UriTemplate authority


cdef Authentication build_authentication(PlanBuilder builder, object endpoint, Bindings bindings):
    """That of an endpoint; None if it has none."""
    cdef Authentication authentication
    cdef object policy = endpoint.get("authentication") if isinstance(endpoint, dict) else None
    cdef dict fields
    if policy is None:
        return None
    if "use" in policy:
        policy = builder.use["authentications"][policy["use"]]
    authentication = Authentication.__new__(Authentication)
    authentication.scheme = next(iter(policy))
    fields = dict(policy[authentication.scheme])
    if "use" in fields:
        authentication.secret = fields["use"]
        return authentication
    if "authority" in fields:
        authentication.authority = parse_uri_template(fields.pop("authority"))
    authentication.fields = builder.template(AT_AUTHENTICATION, fields, bindings)
    return authentication


cdef dict render_authentication(Place at, Authentication authentication):
    """The scheme, and what it says. Raises WalkFault."""
    cdef dict fields
    if authentication.secret is not None:
        value = secret_of(at, authentication.secret)
        if not isinstance(value, dict):
            raise fault_here(at, "configuration",
                             f"{authentication.scheme} authentication takes all of its fields from the secret "
                             f"{shown(authentication.secret)}, so that has to be a JSON object")
        return {authentication.scheme: value}
    fields = dict(fill(at, authentication.fields, at.input, 0))
    if authentication.authority is not None:
        fields["authority"] = expand_uri(at, authentication.authority, at.input)
    return {authentication.scheme: fields}
