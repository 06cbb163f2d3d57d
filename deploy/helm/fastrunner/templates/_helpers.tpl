{{- define "fastrunner.selector" -}}
app: {{ .Values.name }}
app.kubernetes.io/name: fastrunner
{{- end }}

{{- /* Of every object, with the name that is given. */ -}}
{{- define "fastrunner.named" -}}
{{- $name := index . 1 }}
{{- with index . 0 -}}
name: {{ $name }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "fastrunner.selector" . | nindent 2 }}
  app.kubernetes.io/instance: {{ .Release.Name }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}
{{- end }}

{{- define "fastrunner.metadata" -}}
{{- include "fastrunner.named" (list . .Values.name) }}
{{- end }}

{{- /* A probe of the HTTP port, which may speak TLS. */ -}}
{{- define "fastrunner.probe" -}}
path: {{ index . 1 }}
port: http
{{- if include "fastrunner.httpTls" (index . 0) }}
scheme: HTTPS
{{- end }}
{{- end }}

{{- /* Whether the gRPC port speaks TLS: with the certificate of `tls`, or one of your own. Empty: it does not. */ -}}
{{- define "fastrunner.grpcTls" -}}
{{- if or .Values.tls.secretName .Values.secret.files.FASTRUNNER_TLS_CERTIFICATE_FILE (get .Values.config "FASTRUNNER_TLS_CERTIFICATE_FILE") }}true{{ end }}
{{- end }}

{{- /* Whether the HTTP port does. */ -}}
{{- define "fastrunner.httpTls" -}}
{{- if and .Values.tls.http (include "fastrunner.grpcTls" .) }}true{{ end }}
{{- end }}

{{- define "fastrunner.secretName" -}}
{{ .Values.secret.name | default .Values.name }}
{{- end }}

{{- define "fastrunner.serviceAccountName" -}}
{{ .Values.serviceAccount.existing | default .Values.name }}
{{- end }}

{{- define "fastrunner.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* Numbers as they are written: Helm's own text of 1000000 is 1e+06. */ -}}
{{- define "fastrunner.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ . | toJson }}{{ end }}
{{- end }}

{{- define "fastrunner.variables" -}}
{{- $all := dict
  "GRPC_PORT" .Values.grpcPort
  "FASTRUNNER_GRPC_HOST" "::"
  "FASTRUNNER_HTTP_PORT" .Values.httpPort
  "FASTRUNNER_HTTP_HOST" "::"
  "FASTRUNNER_HTTP_TLS" (eq (include "fastrunner.httpTls" .) "true")
  "FASTRUNNER_DATA_DIR" "/var/lib/fastrunner"
  "FASTRUNNER_DRAIN_TIMEOUT_S" .Values.drainTimeoutS
  "STIGMER_SERVICE_ENDPOINT" .Values.stigmerService.endpoint
  "STIGMER_SERVICE_USE_TLS" .Values.stigmerService.useTls
  "LOG_LEVEL" .Values.logLevel
  "ENV" .Values.env }}
{{- if .Values.temporal.enabled }}
{{- $_ := set $all "TEMPORAL_SERVICE_ADDRESS" .Values.temporal.address }}
{{- $_ := set $all "TEMPORAL_NAMESPACE" .Values.temporal.namespace }}
{{- end }}
{{- if .Values.tls.secretName }}
{{- $_ := set $all "FASTRUNNER_TLS_CERTIFICATE_FILE" "/etc/fastrunner/tls/tls.crt" }}
{{- $_ := set $all "FASTRUNNER_TLS_KEY_FILE" "/etc/fastrunner/tls/tls.key" }}
{{- end }}
{{- range $name, $key := .Values.secret.files }}
{{- $_ := set $all $name (printf "/etc/fastrunner/secret/%s" $key) }}
{{- end }}
{{- range $name, $value := .Values.config }}
{{- if hasKey $all $name }}
{{- fail (printf "config.%s: the chart sets it from another value; see README.md" $name) }}
{{- end }}
{{- $_ := set $all $name $value }}
{{- end }}
{{- range $name, $_ := .Values.secret.variables }}
{{- if hasKey $all $name }}
{{- fail (printf "secret.variables.%s: it is set in another place, too" $name) }}
{{- end }}
{{- end }}
{{- if not (keys (pick $all "FASTRUNNER_CALLERS_FILE" "FASTRUNNER_JWT_ISSUER" "FASTRUNNER_TLS_CLIENT_CA_FILE" "FASTRUNNER_AUTH")) }}
{{- fail "nothing tells callers apart, so the runner would not start: set secret.files.FASTRUNNER_CALLERS_FILE, config.FASTRUNNER_JWT_ISSUER or config.FASTRUNNER_TLS_CLIENT_CA_FILE, or config.FASTRUNNER_AUTH to none if whoever reaches the ports may do everything" }}
{{- end }}
{{- range $name, $value := $all }}
{{- printf "%s: %s\n" $name (include "fastrunner.text" $value | quote) }}
{{- end }}
{{- end }}
