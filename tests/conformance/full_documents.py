"""Support of the differential test: valid documents that use every structure the examples leave out."""

_HEADER = "document: {dsl: 1.0.3, namespace: tests, name: full, version: 1.0.0}\n"

DATA_FLOW = (
    _HEADER
    + """
input:
  schema:
    format: json
    document: {type: object, properties: {items: {type: array}}}
  from: '${ {items: .items} }'
output:
  schema: {document: true}
  as: {result: '${ . }', context: '${ $context }'}
evaluate: {language: jq, mode: strict}
timeout: long
use:
  timeouts:
    long: {after: PT1H}
    short: {after: {minutes: 1, seconds: 30}}
  errors:
    refused:
      type: https://example.com/errors/refused
      status: 409
      title: '${ "refused " + $task.name }'
      detail: Not today
      instance: /do/0/first
  retries:
    patient:
      when: ${ .status >= 500 }
      exceptWhen: .status == 501
      delay: {seconds: 1}
      backoff: {exponential: {}}
      limit: {attempt: {count: 3, duration: PT10S}, duration: {minutes: 5}}
      jitter: {from: {milliseconds: 10}, to: '${ $context.jitter }'}
do:
- first:
    if: .items != null
    input: {schema: {document: {type: object}}, from: {a: ['${ .items[0] }', literal]}}
    output: {schema: {document: {}}, as: '${ . + $input + ($output // {}) }'}
    export: {schema: {document: {}}, as: '$context + {seen: $output}'}
    timeout: short
    then: loop
    metadata: {owner: us}
    set: {a: '${ $workflow.id }', b: {c: [1, 2.5, null, true]}}
- loop:
    for: {each: order, in: .items, at: i}
    while: $i < 10 and $order.open
    do:
    - inner:
        for: {in: [{a: 1}, {a: 2}]}
        do:
        - pick:
            set: '${ [$order, $item, $i, $index] }'
            then: continue
- branch:
    fork:
      compete: true
      branches:
      - left:
          do:
          - wait: {wait: {milliseconds: 5}}
          - again: {wait: PT0.5S, then: wait}
      - right: {wait: '${ $context.delay }', then: end}
- choose:
    switch:
    - yes: {when: .a == 1, then: guarded}
    - default: {then: exit}
- guarded:
    try:
    - fail: {raise: {error: refused}}
    - failInline:
        raise: {error: {type: '${ .type }', status: 500, instance: '${ .at }', title: text}}
    catch:
      errors: {with: {type: https://example.com/errors/refused, status: 409, title: a, detail: b, instance: c}}
      as: problem
      when: $problem.status == 409
      exceptWhen: .status == 410
      retry: patient
      do:
      - note: {set: {failure: '${ $problem }'}}
      then: call
- call:
    call: http
    with:
      method: POST
      endpoint: {uri: 'https://example.com/{a}?b={b}'}
      headers: {Accept: application/json, X-Id: '${ $workflow.id }'}
      query: '${ .query }'
      body: {deep: ['${ .a }']}
      output: response
      redirect: true
    then: last
- last:
    try: []
    catch:
      retry: {delay: PT1S, backoff: {linear: {}}}
"""
)

CALLS = (
    _HEADER
    + """
use:
  secrets: [keys]
  authentications:
    shared: {basic: {username: u, password: '${ $secrets.keys.password }'}}
    digested: {digest: {username: u, password: p}}
    secret: {bearer: {use: keys}}
    full:
      oauth2:
        authority: https://example.com/auth
        grant: client_credentials
        endpoints: {token: /token, revocation: /revoke, introspection: /introspect}
        client: {id: a, secret: b, assertion: c, authentication: private_key_jwt}
        request: {encoding: application/json}
        issuers: [a]
        scopes: [b]
        audiences: [c]
        username: u
        password: p
        subject: {token: a, type: b}
        actor: {token: a, type: b}
  catalogs:
    ours: {endpoint: {uri: https://example.com/catalog, authentication: {use: shared}}}
  functions:
    greet:
      input: {schema: {document: {type: object}}}
      set: {hello: '${ .name }'}
  extensions:
  - log:
      extend: all
      when: $task.name != "x"
      before:
      - note: {set: {a: 1}, then: exit}
      after:
      - noteToo: {set: {a: 2}}
do:
- grpc:
    call: grpc
    with:
      proto: {name: greeter, endpoint: 'file://app/greet.proto'}
      service: {name: Greeter, host: localhost, port: 5011, authentication: {use: shared}}
      method: SayHello
      arguments: {name: '${ .name }'}
- openapi:
    call: openapi
    with:
      document: {endpoint: {uri: '${ .uri }', authentication: {use: full}}}
      operationId: find
      parameters: {id: '${ .id }'}
      authentication: {oidc: {use: keys}}
      output: raw
      redirect: false
- publish:
    call: asyncapi
    with:
      document: {endpoint: https://example.com/asyncapi.json}
      operation: send
      server: {name: main, variables: {a: b}}
      protocol: kafka
      message: {payload: {a: '${ .a }'}, headers: {b: c}}
- subscribe:
    call: asyncapi
    with:
      document: {endpoint: https://example.com/asyncapi.json}
      channel: /x
      subscription:
        filter: '${ .correlationId == $context.id }'
        consume: {for: PT1M, while: '${ true }'}
        foreach:
          item: message
          at: i
          do:
          - keep: {set: {m: '${ $message }', i: '${ $i }'}}
          output: {as: '${ $message.payload }'}
          export: {as: '${ $context + {last: $message} }'}
- agent:
    call: a2a
    with:
      agentCard: {endpoint: https://example.com/card.json}
      method: message/send
      parameters: {message: {parts: []}}
- agentAt:
    call: a2a
    with: {server: 'https://example.com/{agent}', method: tasks/get, parameters: '${ .p }'}
- tool:
    call: mcp
    with:
      protocolVersion: '2025-06-18'
      method: tools/call
      parameters: {name: x}
      timeout: {seconds: 10}
      transport:
        http: {endpoint: {uri: https://example.com/mcp}, headers: {a: b}}
        options: {x: y}
      client: {name: a, version: b}
- toolStdio:
    call: mcp
    with:
      method: tools/list
      transport: {stdio: {command: x, arguments: [a], environment: {A: b}}}
- custom: {call: greet, with: {name: '${ .name }'}}
- catalogued: {call: 'log:1.0.0@ours'}
- direct: {call: 'https://example.com/function.yaml', with: {}}
"""
)

EVENTS = (
    _HEADER
    + """
schedule:
  every: {hours: 1}
  cron: 0 0 * * *
  after: PT5M
  on: {any: [{with: {type: a}}]}
  read: envelope
do:
- emit:
    emit:
      event:
        with:
          id: a
          source: '${ "/x" }'
          type: b
          time: 2025-01-31T12:00:00Z
          subject: c
          datacontenttype: application/json
          dataschema: https://example.com/schema
          data: {a: '${ .a }'}
          extension: '${ .b }'
- all:
    listen:
      to:
        all:
        - with: {type: a, source: https://example.com, time: '${ .t }'}
          correlate:
            room: {from: .roomid, expect: '${ $context.room }'}
            floor: {from: '${ .floor }'}
        - with: {data: '${ .x > 1 }'}
      read: raw
    foreach:
      item: event
      at: n
      do:
      - keep: {set: {e: '${ $event }', n: '${ $n }'}}
      output: {as: .e}
      export: {as: '{e: $event}'}
- one: {listen: {to: {one: {with: {type: a}}}}}
- until: {listen: {to: {any: [{with: {type: a}}], until: {all: [{with: {type: b}}]}}}}
- untilTrue: {listen: {to: {any: [], until: '. | length > 3'}}}
- container:
    run:
      await: true
      return: all
      container:
        image: a
        name: '${ "x" }'
        command: ls
        ports: {'8080': 80}
        volumes: {a: b}
        environment: {A: '${ .a }'}
        stdin: '${ .b }'
        arguments: [a, '${ .c }']
        lifetime: {cleanup: eventually, after: PT1M}
        pullPolicy: never
- script:
    run:
      return: code
      script: {language: js, code: 'x()', stdin: a, arguments: [b], environment: {A: 1}}
- scriptFrom: {run: {script: {language: python, source: {endpoint: https://example.com/x.py}}}}
- shell: {run: {await: false, shell: {command: ls, stdin: a, arguments: [b], environment: {A: 1}}}}
- workflow: {run: {workflow: {namespace: a, name: b, version: latest, input: {a: '${ .a }'}}}}
- external:
    input: {schema: {format: 'json', resource: {endpoint: https://example.com/schema.json}}}
    wait: {days: 1, hours: 1, minutes: 1}
"""
)

OTHER_RELEASES = """
document: {dsl: 1.1.0, namespace: tests, name: other, version: 1.0.0}
do:
- any:
    for: {in: [1, a, null, true, [b, '${ .c }'], {d: '${ .e }'}, '${ .f }']}
    do:
    - pick: {set: '${ $item }'}
- older:
    try: []
    catch: {errors: {with: {status: 404, details: gone}}}
"""

FULL_DOCUMENTS = [DATA_FLOW, CALLS, EVENTS, OTHER_RELEASES]
