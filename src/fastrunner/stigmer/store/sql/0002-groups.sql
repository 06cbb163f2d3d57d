-- Schema version 2: lists find executions by what these are counted under, so that no filter has them looked through.
begin immediate;

-- Whatever a filter lets through is of a few groups, which the counters know; the newest of each is one look-up.
create index if not exists executions_by_group on executions (namespace, name, version, status, number);
drop index if exists executions_by_namespace;
drop index if exists executions_by_workflow;
drop index if exists executions_by_workflow_status;

pragma user_version = 2;

commit;
