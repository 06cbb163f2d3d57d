-- One shard, schema version 6: what listings filter by has indexes.
begin immediate;

-- Whatever has not simply completed: few, or still to be written again anyway. Nothing is kept here of an execution that is
-- accepted and completes in one commit.
create index executions_status on executions (status, accepted_ms) where status <> 'completed';
-- Executions of a document, and the documents of a name.
create index executions_plan on executions (plan_key, accepted_ms);
create index plans_name on plans (name, namespace);
create index plans_namespace on plans (namespace);

pragma user_version = 6;

commit;
