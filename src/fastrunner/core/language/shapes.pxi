"""Stage 2, compile: what a document may look like, as data. `check.pxi` interprets these tables.

Rules: one Shape per nested structure of the DSL, one Field per key; what is evaluated names its position, whose form
says what a string may be there. Every object whose keys the DSL names is closed,
also where the official schema leaves it open: a key nobody reads is a mistake of its author. A union is one Shape that
accepts several JSON types, because all unions of the DSL differ by type or, among objects, by their keys.
"""

cimport cython

cdef enum:
    IS_BOOLEAN = 1
    IS_INTEGER = 2
    IS_TEXT = 4
    IS_LIST = 8
    IS_OBJECT = 16
    IS_ANY = 31

# What a string must be.
cdef enum:
    TEXT_FREE
    TEXT_POSITION  # what the form of its position says
    TEXT_LITERAL  # compared as it stands
    TEXT_VALUE  # within a template: an expression only if it is one `${ }`
    TEXT_URI  # the same, and any other text has this format; so the next three
    TEXT_POINTER
    TEXT_TIME
    TEXT_METHOD
    TEXT_WORD
    TEXT_NAME
    TEXT_HOST
    TEXT_SEMVER
    TEXT_DSL
    TEXT_LANGUAGE
    TEXT_VARIABLE
    TEXT_THEN
    TEXT_REFERENCE
    TEXT_FUNCTION
    TEXT_PATH
    TEXT_CRON
    TEXT_FORMAT
    TEXT_EXTENDED

# Rules of objects and lists beyond their keys and items.
cdef enum:
    RULE_NONE
    RULE_TASK
    RULE_TASKS
    RULE_BRANCHES
    RULE_NAMED
    RULE_AGENT
    RULE_ASYNCAPI
    RULE_MCP
    RULE_CASES
    RULE_SINGLE_KEY
    RULE_LIFETIME
    RULE_SCHEDULE
    RULE_UNTIL
    RULE_SCHEMA
    RULE_ELSEWHERE
    RULE_DESCRIPTION
    RULE_CLIENT
    RULE_SCHEME
    RULE_FUNCTIONS
    RULE_DURATION
    RULE_FILTER
    RULE_EMITTED
    RULE_WANTED
    RULE_RUN
    RULE_ARGUMENTS
    RULE_EXTENSION
    RULE_EXTENSIONS


cdef class Shape


@cython.internal
@cython.final
cdef class Field:
    """One key of an object."""

    cdef Shape shape
    cdef Position position
    """None: that of the object."""
    cdef str unsupported
    """What is checked and then refused: the feature's name."""
    cdef bint is_reusable
    """A group of definitions, whose variables are checked where they are used."""

    def __init__(self, Shape shape not None, Position position=None, str unsupported=None, bint is_reusable=False):
        self.shape = shape
        self.position = position
        self.unsupported = unsupported
        self.is_reusable = is_reusable


@cython.internal
@cython.final
cdef class Shape:
    """What one value may be."""

    cdef str expected
    cdef int types
    cdef int text
    cdef tuple words
    cdef str group
    cdef bint is_template
    cdef dict fields
    cdef Shape members
    cdef Shape items
    cdef tuple required
    cdef tuple choices
    cdef Py_ssize_t size_min
    cdef object low
    cdef object high
    cdef int rule
    cdef int binds

    def __init__(self, str expected, int types, *, int text=TEXT_FREE, tuple words=(), str group=None,
                 bint is_template=False, dict fields=None, Shape members=None, Shape items=None, tuple required=(),
                 tuple choices=(), Py_ssize_t size_min=0, object low=-(2 ** 63), object high=2 ** 64 - 1,
                 int rule=RULE_NONE, int binds=BINDS_NOTHING):
        self.expected = expected
        self.types = types
        self.text = text
        self.words = words
        self.group = group
        self.is_template = is_template
        self.members = members
        self.items = items
        self.required = required
        self.choices = choices
        self.size_min = size_min
        self.low = low
        self.high = high
        self.rule = rule
        self.binds = binds
        self.set_fields(fields)

    cdef int set_fields(self, dict fields) except -1:
        """Keys given as Shape stand for a Field without further rules. Separate, because shapes are recursive."""
        if fields is None:
            self.fields = None
            return 0
        self.fields = {}
        for key, field in fields.items():
            self.fields[key] = field if isinstance(field, Field) else Field(field)
        return 0


# --- leaves ---

cdef Shape FREE = Shape("a string", IS_TEXT)
cdef Shape LITERAL = Shape("a string", IS_TEXT, text=TEXT_LITERAL)
cdef Shape VALUE = Shape("a string", IS_TEXT, text=TEXT_VALUE)
cdef Shape EXPRESSION = Shape("an expression (a string)", IS_TEXT, text=TEXT_POSITION)
cdef Shape WRAPPED = Shape("an expression in ${ } (a string)", IS_TEXT, text=TEXT_POSITION)
cdef Shape VARIABLE = Shape("a variable name (a string)", IS_TEXT, text=TEXT_VARIABLE)
cdef Shape THEN = Shape("continue, exit, end or a task name (a string)", IS_TEXT, text=TEXT_THEN)
cdef Shape BOOLEAN = Shape("true or false", IS_BOOLEAN)
cdef Shape INTEGER = Shape("an integer", IS_INTEGER)
cdef Shape ANYTHING = Shape("any value", IS_ANY, is_template=True)
cdef Shape FREE_MAP = Shape("an object", IS_OBJECT)
cdef Shape TEMPLATE_MAP = Shape("an object", IS_OBJECT, is_template=True)
cdef Shape VALUE_MAP = Shape("an object of strings", IS_OBJECT, members=VALUE)
cdef Shape VALUE_LIST = Shape("a list of strings", IS_LIST, items=VALUE)
cdef Shape EMPTY_MAP = Shape("an empty object", IS_OBJECT, fields={})
cdef Shape READ = Shape("data, envelope or raw", IS_TEXT, text=TEXT_WORD, words=("data", "envelope", "raw"))
cdef Shape HTTP_OUTPUT = Shape("content, raw or response", IS_TEXT, text=TEXT_WORD,
                               words=("content", "raw", "response"))
cdef Shape URI = Shape("a URI or URI template (a string)", IS_TEXT, text=TEXT_POSITION)
cdef Shape URI_PATH = Shape("a path relative to the authority (a string)", IS_TEXT, text=TEXT_PATH)
cdef str URI_OR_EXPRESSION = "a URI, a URI template or an expression in ${ } (a string)"
cdef Shape URI_VALUE = Shape(URI_OR_EXPRESSION, IS_TEXT, text=TEXT_URI)
cdef Shape DURATION_COUNT = Shape("an integer", IS_INTEGER, rule=RULE_DURATION)
cdef Shape DURATION = Shape(
    "a duration: an object with days, hours, minutes, seconds or milliseconds, an ISO 8601 string such as PT5S, or an "
    "expression in ${ }", IS_TEXT | IS_OBJECT, text=TEXT_POSITION, size_min=1, rule=RULE_DURATION,
    fields=dict.fromkeys(DURATION_UNITS_MS, DURATION_COUNT))


# --- authentication ---

cdef Shape SECRET = Shape("the name of a secret (a string)", IS_TEXT, text=TEXT_REFERENCE, group="secrets")
cdef Shape POLICY_NAME = Shape("the name of an authentication policy (a string)", IS_TEXT, text=TEXT_REFERENCE,
                               group="authentications")
cdef Shape OAUTH2_TOKEN = Shape("a token", IS_OBJECT, fields={"token": VALUE, "type": VALUE},
                                required=("token", "type"))
cdef Shape OAUTH2_CLIENT = Shape("an OAuth2 client", IS_OBJECT, rule=RULE_CLIENT, fields={
    "id": VALUE,
    "secret": VALUE,
    "assertion": VALUE,
    "authentication": Shape("a client authentication method", IS_TEXT, text=TEXT_WORD, words=(
        "client_secret_post", "client_secret_basic", "client_secret_jwt", "private_key_jwt", "none")),
})
cdef Shape OAUTH2_ENDPOINTS = Shape("an object", IS_OBJECT,
                                    fields={"token": URI_PATH, "revocation": URI_PATH, "introspection": URI_PATH})
cdef dict OIDC_FIELDS = {
    "use": SECRET,
    "authority": Field(URI, AT_AUTHORITY),
    "grant": Shape("an OAuth2 grant", IS_TEXT, text=TEXT_WORD, words=(
        "authorization_code", "client_credentials", "password", "refresh_token",
        "urn:ietf:params:oauth:grant-type:token-exchange")),
    "client": OAUTH2_CLIENT,
    "request": Shape("an object", IS_OBJECT, fields={"encoding": Shape(
        "a token request encoding", IS_TEXT, text=TEXT_WORD,
        words=("application/x-www-form-urlencoded", "application/json"))}),
    "issuers": VALUE_LIST,
    "scopes": VALUE_LIST,
    "audiences": VALUE_LIST,
    "username": VALUE,
    "password": VALUE,
    "subject": OAUTH2_TOKEN,
    "actor": OAUTH2_TOKEN,
}


def _scheme(str name, dict fields, tuple required):
    """One authentication scheme: its own keys, or `use` with the name of a secret and nothing else."""
    return Shape(f"{name} authentication", IS_OBJECT, fields=dict(fields, use=SECRET), required=required,
                 rule=RULE_SCHEME)


cdef dict SCHEMES = {
    "basic": _scheme("basic", {"username": VALUE, "password": VALUE}, ("username", "password")),
    "bearer": _scheme("bearer", {"token": VALUE}, ("token",)),
    "digest": _scheme("digest", {"username": VALUE, "password": VALUE}, ("username", "password")),
    "oauth2": _scheme("oauth2", dict(OIDC_FIELDS, endpoints=OAUTH2_ENDPOINTS), ("authority", "grant")),
    "oidc": _scheme("oidc", OIDC_FIELDS, ("authority", "grant")),
}
cdef Shape POLICY = Shape("an authentication policy (an object)", IS_OBJECT, fields=SCHEMES, choices=(tuple(SCHEMES),))
cdef Shape POLICY_OR_REFERENCE = Shape("an authentication policy (an object)", IS_OBJECT,
                                       fields=dict(SCHEMES, use=POLICY_NAME), choices=(("use", *SCHEMES),))
cdef Field AUTHENTICATION = Field(POLICY_OR_REFERENCE, AT_AUTHENTICATION)
cdef Field RESOURCE_AUTHENTICATION = Field(POLICY_OR_REFERENCE, AT_RESOURCE_AUTHENTICATION)

# --- endpoints, resources, schemas, data flow ---


def _endpoint(Field authentication):
    return Shape("an endpoint: a URI, a URI template, an expression in ${ } or an object with uri", IS_TEXT | IS_OBJECT,
                 text=TEXT_POSITION, required=("uri",), fields={
                     "uri": Shape(URI_OR_EXPRESSION, IS_TEXT, text=TEXT_POSITION),
                     "authentication": authentication,
                 })


def _resource(Shape endpoint, int rule=RULE_NONE):
    return Shape("an external resource: an object with endpoint", IS_OBJECT,
                 fields={"name": FREE, "endpoint": endpoint}, required=("endpoint",), rule=rule)


def _data(str key, Position position):
    """`input`, `output` or `export`: a schema, and the transformation under its key."""
    return Shape("an object", IS_OBJECT, fields={"schema": SCHEMA, key: Field(TRANSFORMATION, position)})


cdef Shape ENDPOINT = _endpoint(AUTHENTICATION)
cdef Shape RESOURCE = _resource(ENDPOINT, RULE_DESCRIPTION)
# Those that belong to no task.
cdef Shape ROOT_ENDPOINT = _endpoint(RESOURCE_AUTHENTICATION)
cdef Shape ROOT_RESOURCE = _resource(ROOT_ENDPOINT)
cdef Shape SCHEMA = Shape("a schema: an object with document or resource", IS_OBJECT, fields={
    "format": Shape("a schema format (a string)", IS_TEXT, text=TEXT_FORMAT),
    "document": Shape("a JSON Schema", IS_ANY, rule=RULE_SCHEMA),
    "resource": Field(ROOT_RESOURCE, AT_RESOURCE),
}, choices=(("document", "resource"),), rule=RULE_ELSEWHERE)
cdef Shape TRANSFORMATION = Shape("an expression (a string) or an object", IS_TEXT | IS_OBJECT, text=TEXT_POSITION,
                                  is_template=True)
cdef Shape TIMEOUT = Shape("a timeout: an object with after", IS_OBJECT, fields={"after": DURATION},
                           required=("after",))
cdef Shape TIMEOUT_OR_REFERENCE = Shape(
    "a timeout: an object with after, or the name of one in use.timeouts", IS_OBJECT | IS_TEXT, text=TEXT_REFERENCE,
    group="timeouts", fields={"after": DURATION}, required=("after",))

# --- errors and retries ---

cdef dict ERROR_FIELDS = {
    "type": URI_VALUE,
    "status": INTEGER,
    "instance": Shape("a JSON pointer or an expression in ${ } (a string)", IS_TEXT, text=TEXT_POINTER),
    "title": VALUE,
    "detail": VALUE,
}
cdef Shape ERROR = Shape("an error: an object with type and status", IS_OBJECT, fields=ERROR_FIELDS,
                         required=("type", "status"))
cdef Shape ERROR_OR_REFERENCE = Shape(
    "an error: an object with type and status, or the name of one in use.errors", IS_OBJECT | IS_TEXT,
    text=TEXT_REFERENCE, group="errors", fields=ERROR_FIELDS, required=("type", "status"))
cdef Shape ERROR_FILTER = Shape(
    "an error filter", IS_OBJECT, size_min=1, rule=RULE_FILTER,
    fields={"type": LITERAL, "status": INTEGER, "instance": LITERAL, "title": LITERAL, "detail": LITERAL,
            "details": LITERAL})
cdef dict RETRY_FIELDS = {
    "when": Field(EXPRESSION, AT_RETRY_WHEN),
    "exceptWhen": Field(EXPRESSION, AT_RETRY_EXCEPT_WHEN),
    "delay": Field(DURATION, AT_RETRY_DELAY),
    "backoff": Shape("a backoff: an object with constant, exponential or linear, such as {exponential: {}}", IS_OBJECT,
                     fields={"constant": EMPTY_MAP, "exponential": EMPTY_MAP, "linear": EMPTY_MAP},
                     choices=(("constant", "exponential", "linear"),)),
    "limit": Shape("an object", IS_OBJECT, fields={
        "attempt": Shape("an object", IS_OBJECT,
                         fields={"count": INTEGER, "duration": Field(DURATION, AT_RETRY_ATTEMPT_DURATION)}),
        "duration": Field(DURATION, AT_RETRY_DURATION),
    }),
    "jitter": Shape("a jitter: an object with from and to", IS_OBJECT, required=("from", "to"),
                    fields={"from": Field(DURATION, AT_RETRY_JITTER), "to": Field(DURATION, AT_RETRY_JITTER)}),
}
cdef Shape RETRY = Shape("a retry policy (an object)", IS_OBJECT, fields=RETRY_FIELDS)
cdef Shape RETRY_OR_REFERENCE = Shape("a retry policy (an object), or the name of one in use.retries",
                                      IS_OBJECT | IS_TEXT, text=TEXT_REFERENCE, group="retries", fields=RETRY_FIELDS)

# --- events ---

cdef dict EVENT_FIELDS = {
    "id": VALUE,
    "source": URI_VALUE,
    "type": VALUE,
    "time": Shape("an RFC 3339 time or an expression in ${ } (a string)", IS_TEXT, text=TEXT_TIME),
    "subject": VALUE,
    "datacontenttype": VALUE,
    "dataschema": URI_VALUE,
    "data": ANYTHING,
}
cdef Shape EMITTED_EVENT = Shape("the properties of an event", IS_OBJECT, fields=EVENT_FIELDS, members=ANYTHING,
                                 required=("type",), rule=RULE_EMITTED)
cdef tuple STRATEGY_CHOICES = (("all", "any", "one"),)


def _strategy(Position properties, Position key, Position expected, Position until):
    """Which events are waited for: by their properties, and by a key that is the same in all of them."""
    correlation = Shape("a correlation: an object with from", IS_OBJECT, required=("from",),
                        fields={"from": Field(EXPRESSION, key), "expect": Field(VALUE, expected)})
    event = Shape("an event filter: an object with `with`", IS_OBJECT, required=("with",), fields={
        "with": Field(Shape("the properties of an event", IS_OBJECT, fields=EVENT_FIELDS, members=ANYTHING, size_min=1,
                            rule=RULE_WANTED), properties),
        "correlate": Shape("an object of correlations", IS_OBJECT, members=correlation),
    })
    events = Shape("a list of event filters", IS_LIST, items=event)
    fields = {"all": events, "any": events, "one": event}
    end = Shape("an expression (a string) or an event strategy without until", IS_TEXT | IS_OBJECT, text=TEXT_POSITION,
                fields=fields, choices=STRATEGY_CHOICES)
    return Shape("an event strategy: an object with all, any or one", IS_OBJECT, rule=RULE_UNTIL,
                 fields=dict(fields, until=Field(end, until)), choices=STRATEGY_CHOICES)


cdef Shape LISTEN_STRATEGY = _strategy(AT_LISTEN_WITH, AT_LISTEN_CORRELATE_FROM, AT_LISTEN_CORRELATE_EXPECT,
                                       AT_LISTEN_UNTIL)
cdef Shape SCHEDULE_STRATEGY = _strategy(AT_SCHEDULE_WITH, AT_SCHEDULE_CORRELATE_FROM, AT_SCHEDULE_CORRELATE_EXPECT,
                                         AT_SCHEDULE_UNTIL)
