"""Support: every limit, each with the test that reaches it: that fails if the bound is not kept.

Rules: a limit is reached by its effect, such as a refusal, an error, an order of things, or the time something takes on
a clock that the test moves. Whoever adds a limit adds it here.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

from fastrunner.base import limits

ROOT = Path(__file__).parent.parent
REACHED = {
    "core/test_secrets.py": {
        "SECRET_HIDDEN_SIZE_CHARS_MIN": "test_short_values_are_not_looked_for",
    },
    "unit/test_sealing.py": {
        "DATA_KEYS_DERIVED_MAX": "test_keys_derived_are_bounded",
        "DATA_KEY_FILE_SIZE_BYTES_MAX": "test_files_that_hold_no_keys",
    },
    "integration/test_sealed_data.py": {
        "RESEAL_ROWS_PER_COMMIT": "test_an_open_directory_is_sealed_when_it_is_resealed",
    },
    "integration/test_asyncapi_nats.py": {
        "ASYNCAPI_ACK_WAIT_S": "test_messages_a_workflow_works_on_are_not_given_to_others",
        "ASYNCAPI_CLOSE_S_MAX": "test_a_server_that_does_not_say_goodbye",
        "ASYNCAPI_CONSUMER_KEPT_S": "test_a_consumer_that_is_away_is_kept_for_a_while",
        "ASYNCAPI_MESSAGES_WAITING_SIZE_BYTES_MAX": "test_more_than_waits_for_a_workflow",
        "ASYNCAPI_RECONNECT_INTERVAL_S": "test_a_server_that_stays_away",
        "ASYNCAPI_RECONNECT_S_MAX": "test_a_server_that_stays_away",
    },
    "unit/test_secrets.py": {
        "SECRETS_HIDDEN_MAX": "test_the_latest_values_are_hidden",
        "SECRET_DEPTH_MAX": "test_what_is_too_deep_is_text",
        "SECRET_SIZE_BYTES_MAX": "test_what_cannot_be_read_has_no_value",
    },
    "integration/test_subflows.py": {
        "SUBFLOW_DEPTH_MAX": "test_recursion_ends_at_a_bound",
        "SUBFLOW_EXECUTIONS_RATIO_MAX": "test_far_more_executions_than_clients_may_start",
        "SUBFLOW_RETRY_S_MAX": "test_a_child_waits_where_a_client_is_refused",
        "SUBFLOW_RETRY_S_MIN": "test_a_child_waits_where_a_client_is_refused",
    },
    "core/test_functions.py": {
        "RESOURCES_PER_DOCUMENT_MAX": "test_bounds_hold_across_texts",
        "RESOURCE_URL_SIZE_CHARS_MAX": "test_urls_that_are_refused",
    },
    "integration/test_descriptions.py": {
        "DESCRIPTIONS_KEPT_MAX": "test_descriptions_are_bounded_in_number",
        "DESCRIPTIONS_KEPT_SIZE_BYTES_MAX": "test_descriptions_are_bounded_in_bytes_and_equal_ones_count_once",
        "DESCRIPTION_FRESH_S": "test_the_default_is_a_while",
        "DESCRIPTION_FRESH_S_MAX": "test_how_long_a_text_is_good",
        "DESCRIPTION_SIZE_BYTES_MAX": "test_a_text_without_an_end_is_given_up",
    },
    "integration/test_resources.py": {
        "RESOURCES_FETCHED_AT_ONCE_MAX": "test_requests_at_a_time_are_bounded",
        "RESOURCES_FETCH_S_MAX": "test_a_slow_server_holds_nobody_else",
        "RESOURCE_REDIRECTS_MAX": "test_redirects_lead_where_calls_may_go_and_a_few_times",
        "RESOURCE_RETRY_S": "test_what_may_be_had_later_says_so",
        "RESOURCE_SIZE_BYTES_MAX": "test_a_body_without_an_end_is_given_up",
    },
    "unit/test_schedule_leader.py": {
        "SCHEDULES_AT_ONCE_MAX": "test_only_so_many_at_a_time",
        "SCHEDULES_BY_EVENTS_MAX": "test_schedules_by_events_are_bounded",
        "SCHEDULES_COUNT_MAX": "test_the_same_request_and_another_one",
        "SCHEDULE_END_LOOK_MS_MAX": "test_the_end_is_looked_for_now_and_then",
        "SCHEDULE_END_LOOK_MS_MIN": "test_the_end_is_looked_for_now_and_then",
        "SCHEDULE_EVENTS_MAX": "test_events_start_executions_once_each",
        "SCHEDULE_LOOK_INTERVAL_S": "test_one_leads_and_another_takes_over",
        "SCHEDULE_MISFIRES_DEFAULT": "test_defaults_of_policies",
        "SCHEDULE_QUEUE_DEFAULT": "test_defaults_of_policies",
        "SCHEDULE_RETRY_INTERVAL_S": "test_a_moment_is_tried_again",
        "SCHEDULE_START_S_MAX": "test_no_schedule_waits_for_another",
    },
    "unit/test_schedule_planner.py": {
        "SCHEDULE_BACKFILL_MAX": "test_a_range_of_moments",
        "SCHEDULE_CLOCK_BACK_MS": "test_the_clock_goes_back_under_a_cron_expression",
        "SCHEDULE_LATE_MS_MAX": "test_what_becomes_of_missed_moments",
    },
    "integration/test_schedules.py": {
        "SCHEDULE_ID_SIZE_BYTES_MAX": "test_what_is_refused",
        "SCHEDULE_INTERVAL_MS_MIN": "test_what_is_refused",
        "SCHEDULE_JITTER_MS_MAX": "test_what_is_refused",
        "SCHEDULE_KEY_SIZE_BYTES_MAX": "test_what_is_refused",
        "SCHEDULE_MISFIRES_MAX": "test_what_is_refused",
        "SCHEDULE_QUEUE_MAX": "test_what_is_refused",
    },
    "unit/test_registry_file.py": {
        "SHARED_FILE_WAIT_MS_MAX": "test_a_writer_that_does_not_end",
    },
    "unit/test_event_attributes.py": {
        "EVENT_ATTRIBUTES_COUNT_MAX": "test_sizes_of_an_event",
        "EVENT_ATTRIBUTE_NAME_SIZE_CHARS_MAX": "test_what_is_no_event",
        "EVENT_ATTRIBUTE_SIZE_BYTES_MAX": "test_sizes_of_an_event",
        "EVENT_SIZE_BYTES_MAX": "test_sizes_of_an_event",
    },
    "integration/test_cloud_events.py": {
        "EVENTS_BATCH_COUNT_MAX": "test_requests_over_their_bounds",
        "EVENTS_REQUESTS_SIZE_BYTES_MAX": "test_bodies_that_do_not_end",
        "EVENTS_REQUEST_SIZE_BYTES_MAX": "test_requests_that_are_refused",
        "EVENTS_REQUEST_S_MAX": "test_bodies_that_do_not_end",
    },
    "integration/test_event_sinks.py": {
        "EVENT_SINKS_SIZE_BYTES_MAX": "test_events_for_sinks_are_given_up_in_the_end",
        "EVENT_SINK_BATCH_COUNT_MAX": "test_batches_are_bounded",
        "EVENT_SINK_LOOK_INTERVAL_S": "test_one_process_sends_and_another_takes_over",
        "EVENT_SINK_PAUSE_S_MAX": "test_pauses_double_up_to_a_bound",
        "EVENT_SINK_PAUSE_S_MIN": "test_pauses_double_up_to_a_bound",
        "EVENT_SINK_REFUSALS_MAX": "test_an_event_that_a_sink_refuses_is_passed_over",
        "EVENT_SINK_TIMEOUT_S": "test_a_sink_that_does_not_answer",
    },
    "integration/test_event_bus.py": {
        "EVENTS_COMMIT_COUNT_MAX": "test_what_comes_meanwhile_shares_a_commit",
        "EVENTS_COMMIT_SIZE_BYTES_MAX": "test_what_comes_meanwhile_shares_a_commit",
        "EVENTS_JOURNAL_PAGES_MAX": "test_the_journal_is_folded_into_the_file",
        "EVENTS_LOOK_INTERVAL_S": "test_keeping_goes_on_by_itself",
        "EVENTS_PAGE_SIZE_BYTES_MAX": "test_pages_end_early_where_events_are_large",
        "EVENTS_PENDING_SIZE_BYTES_MAX": "test_events_that_await_their_commit_are_bounded",
        "EVENTS_PRUNED_PER_COMMIT_MAX": "test_events_are_pruned_in_slices",
        "EVENTS_RETAINED_COUNT_MAX": "test_the_oldest_go_when_there_are_too_many",
        "EVENTS_RETAINED_SIZE_BYTES_MAX": "test_the_oldest_go_when_there_are_too_many",
    },
    "integration/test_run.py": {
        "RUN_GRACE_S": "test_a_timeout_ends_all_that_was_started",
    },
    "integration/test_run_container.py": {
        "CONTAINER_LOOK_INTERVAL_S": "test_how_often_a_container_is_looked_at",
        "CONTAINER_NAME_PART_SIZE_CHARS": "test_long_names_are_cut",
        "CONTAINER_NAME_SIZE_CHARS_MAX": "test_values_that_no_container_can_be_given",
        "CONTAINER_REMOVALS_MAX": "test_how_often_it_is_tried_to_remove_a_container",
        "CONTAINER_VARIABLE_SIZE_BYTES_MAX": "test_values_that_no_container_can_be_given",
        "RUN_COMMAND_S_MAX": "test_an_engine_that_does_not_answer",
    },
    "integration/test_run_limits.py": {
        "RUN_CLOSE_S_MAX": "test_a_stopping_worker_waits_so_long",
        "RUN_DESCRIPTORS_MAX": "test_descriptors_of_a_process",
        "RUN_OUTPUT_SIZE_BYTES_MAX": "test_output_up_to_its_bound",
        "RUN_PROCESSES_PER_WORKER_MAX": "test_processes_at_once",
        "RUN_STDERR_SEARCHED_SIZE_BYTES_MAX": "test_no_part_of_a_secret_is_shown",
        "RUN_STDERR_SHOWN_SIZE_CHARS_MAX": "test_the_end_of_stderr_is_shown",
    },
    "integration/test_registry.py": {
        "WORKFLOW_REF_SIZE_BYTES_MAX": "test_references_that_are_refused",
    },
    "integration/test_standing.py": {
        "STREAM_CREDENTIALS_LOOK_INTERVAL_S": "test_a_stream_ends_when_its_token_has",
        "STREAM_CREDENTIALS_SLICE": "test_streams_are_judged_in_slices",
    },
    "integration/test_callers.py": {
        "CREDENTIALS_LOOK_INTERVAL_S": "test_callers_file_is_read_again",
    },
    "unit/test_callers_file.py": {
        "CALLERS_SIZE_BYTES_MAX": "test_files_that_cannot_be_used",
    },
    "integration/test_jwt.py": {
        "JWT_CLOCK_SKEW_S_MAX": "test_tokens_that_are_no_good",
        "JWT_KEYS_AGE_S_MAX": "test_keys_are_asked_for_again",
        "JWT_KEYS_ASK_INTERVAL_S": "test_unknown_keys_are_not_asked_for_at_once_again",
        "JWT_VERIFICATIONS_MAX": "test_verifications_are_bounded",
        "JWT_VERIFIED_MAX": "test_verified_tokens_are_kept",
        "JWT_VERIFIED_S_MAX": "test_verified_tokens_are_kept",
    },
    "integration/test_credentials.py": {
        "DISCOVERY_S_MAX": "test_how_long_discovery_is_kept",
        "DISCOVERY_UNDATED_S": "test_how_long_discovery_is_kept",
        "TOKENS_KEPT_MAX": "test_tokens_that_are_kept",
        "TOKEN_MARGIN_S_MAX": "test_tokens_are_obtained_anew_before_they_end",
        "TOKEN_RESPONSE_SIZE_BYTES_MAX": "test_answers_that_hold_no_token",
        "TOKEN_TIMEOUT_S": "test_an_authority_that_says_nothing",
        "TOKEN_UNDATED_S": "test_tokens_are_obtained_anew_before_they_end",
    },
    "core/test_jq_bounds.py": {
        "EXPRESSION_ERROR_SIZE_MAX": "test_error_messages_are_cut",
    },
    "core/test_hostile_documents.py": {
        "DOCUMENT_COMPILE_STEPS_MAX": "test_expressions_of_a_document_share_its_steps",
    },
    "core/test_events.py": {
        "EVENT_MATCH_STEPS_MAX": "test_time_an_index_has_for_an_expression",
        "EVENT_PROGRAMS_KEPT_MAX": "test_compiled_expressions_that_are_kept",
    },
    "core/test_listen.py": {
        "EVENT_FILTER_SIZE_BYTES_MAX": "test_large_values_are_left_to_the_walk",
    },
    "core/test_limits.py": {
        "DOCUMENT_DEPTH_MAX": "test_depth_of_a_document",
        "DOCUMENT_KEY_SIZE_MAX": "test_size_of_a_key",
        "DURATION_MS_MAX": "test_longest_computed_wait",
        "EXPRESSION_ARRAY_SIZE_MAX": "test_array_of_an_evaluation",
        "EXPRESSION_COMPILE_STEPS_MAX": "test_work_of_compiling_an_expression",
        "EXPRESSION_DEPTH_MAX": "test_bounds_of_an_evaluation",
        "EXPRESSION_OUTPUTS_MAX": "test_results_of_an_evaluation",
        "EXPRESSION_SIZE_BYTES_MAX": "test_size_of_an_expression",
        "EXPRESSION_STEPS_MAX": "test_bounds_of_an_evaluation",
        "EXPRESSION_STRING_SIZE_MAX": "test_bounds_of_an_evaluation",
        "REGEX_DEPTH_MAX": "test_nesting_of_a_regular_expression",
        "REGEX_INSTRUCTIONS_MAX": "test_instructions_of_a_regular_expression",
        "REGEX_PATTERNS_MAX": "test_compiled_regular_expressions_that_are_kept",
        "REGEX_SIZE_CHARS_MAX": "test_size_of_a_regular_expression",
        "REGEX_STACK_MAX": "test_stack_of_the_matcher",
        "SCHEMA_COMPILE_STEPS_MAX": "test_work_of_compiling_a_schema",
        "SCHEMA_DEPTH_MAX": "test_schemas_within_schemas",
        "SCHEMA_ERRORS_MAX": "test_violations_of_a_schema_that_are_told",
        "SCHEMA_MESSAGE_SIZE_MAX": "test_violations_of_a_schema_that_are_told",
        "SCHEMA_STEPS_MAX": "test_work_of_a_schema",
        "STRAND_STEPS_MAX": "test_branch_rests_after_its_steps",
        "TASK_NESTING_MAX": "test_task_lists_within_task_lists",
    },
    "core/test_load.py": {
        "DOCUMENT_NODES_MAX": "test_bounds",
        "DOCUMENT_SIZE_BYTES_MAX": "test_bounds",
    },
    "core/test_validate.py": {
        "FORK_BRANCHES_MAX": "test_bounds_of_tasks",
        "PROBLEMS_MAX": "test_problems_are_bounded_in_document_order",
        "TASKS_PER_DOCUMENT_MAX": "test_bounds_of_tasks",
    },
    "core/test_walk_bounds.py": {
        "EVENTS_PER_EXECUTION_MAX": "test_events_of_an_execution",
        "ITERATIONS_PER_LOOP_MAX": "test_items_of_a_loop",
    },
    "core/test_walk_costs.py": {
        "EVENT_ERROR_SIZE_CHARS_MAX": "test_error_texts_in_events_are_cut_once_and_say_so",
        "STEPS_PER_EXECUTION_MAX": "test_endless_work_that_says_nothing_ends",
        "WALK_DATA_BYTES_PER_STEP": "test_large_state_makes_slices_short",
    },
    "core/test_walk_budget.py": {
        "DATA_SIZE_BYTES_MAX": "test_shared_parts_end_at_the_door",
        "WALK_EXPRESSION_STEPS_PER_STEP": "test_a_long_evaluation_ends_its_slice",
    },
    "core/test_walk_control.py": {
        "DATA_DEPTH_MAX": "test_a_result_too_deep_to_keep_is_an_error",
        "WALK_STEPS_PER_SLICE_MAX": "test_a_slice_is_bounded_and_memory_does_not_grow",
    },
    "core/test_walk_events.py": {
        "OUTPUT_JSON_SIZE_BYTES_MAX": "test_output_beyond_the_bound_is_left_out_and_stays_queryable",
    },
    "integration/test_call_http.py": {
        "HTTP_CONNECTIONS_PER_HOST_MAX": "test_connections_to_one_host",
        "HTTP_CONNECT_TIMEOUT_S_MAX": "test_host_that_drops_packets",
        "HTTP_REDIRECTS_MAX": "test_redirects_are_followed_up_to_the_bound",
        "HTTP_RESPONSE_DEPTH_MAX": "test_too_deep_json_is_an_error",
        "HTTP_RESPONSE_SIZE_BYTES_MAX": "test_too_large_response",
    },
    "integration/test_call_http_wire.py": {
        "HTTP_HEADERS_COUNT_MAX": "test_headers_of_a_response",
        "HTTP_HEADERS_SIZE_BYTES_MAX": "test_headers_of_a_response",
        "HTTP_RESPONSES_SIZE_BYTES_MAX": "test_room_for_bodies_is_bounded_and_small_ones_do_not_wait",
        "HTTP_RESPONSE_SMALL_SIZE_BYTES": "test_room_for_bodies_is_bounded_and_small_ones_do_not_wait",
        "HTTP_SLICE_MS": "test_large_bodies_leave_the_loop_to_others",
    },
    "unit/test_http_request.py": {
        "HTTP_RETRY_AFTER_S_MAX": "test_how_long_a_response_asks_to_be_left_alone",
    },
    "integration/test_callback_delivery.py": {
        "OUTBOX_AGE_S_MAX": "test_events_too_old_are_dropped_counted_and_logged",
    },
    "integration/test_descriptors.py": {
        "DESCRIPTORS_FREE_MIN": "test_worker_without_descriptors_says_so",
        "DESCRIPTORS_LOOK_INTERVAL_S": "test_worker_without_descriptors_says_so",
        "DESCRIPTORS_RESERVED_MAX": "test_connections_without_calls_leave_the_worker_what_it_needs",
    },
    "integration/test_http_port.py": {
        "HTTP_CONNECTIONS_MAX": "test_more_connections_than_there_may_be",
        "HTTP_HEAD_S_MAX": "test_head_that_does_not_come",
        "HTTP_IDLE_S_MAX": "test_connection_that_is_kept",
        "HTTP_LOOK_INTERVAL_S": "test_connection_that_is_kept",
        "HTTP_SETTLE_INTERVAL_S": "test_stop_waits_for_who_has_been_accepted",
        "HTTP_SETTLE_S_MAX": "test_stop_waits_for_who_has_been_accepted",
    },
    "integration/test_memory_return.py": {
        "MEMORY_FREE_SIZE_BYTES_MIN": "test_memory_of_large_requests_goes_back",
        "MEMORY_LOOK_INTERVAL_S": "test_memory_of_large_requests_goes_back",
    },
    "integration/test_drain.py": {
        "DRAIN_HAND_OVER_S_MAX": "test_restart_of_a_single_worker_does_not_wait_long_for_an_effect",
    },
    "integration/test_engine_bounds.py": {
        "DOCUMENTS_REFUSED_KNOWN_MAX": "test_texts_that_are_no_workflow_are_remembered_within_bounds",
        "DOCUMENT_REFUSED_SIZE_CHARS_MAX": "test_texts_that_are_no_workflow_are_remembered_within_bounds",
        "EFFECTS_IN_FLIGHT_PER_WORKER_MAX": "test_effects_beyond_the_bound_wait_their_turn",
        "PLANS_CACHED_MAX": "test_plan_cache_keeps_the_latest_and_stays_within_its_bounds",
        "PLANS_CACHED_SIZE_CHARS_MAX": "test_plan_cache_keeps_the_latest_and_stays_within_its_bounds",
        "SNAPSHOT_SIZE_BYTES_MAX": "test_state_beyond_its_bound_ends_the_execution",
        "TIMERS_DEAD_MAX": "test_timer_entries_of_ended_executions_do_not_pile_up",
    },
    "integration/test_engine_eviction.py": {
        "EFFECTS_WAITING_RESIDENT_MAX": "test_executions_without_a_place_for_their_effect_wait_on_disk",
        "LOAD_PASS_S_MAX": "test_costly_executions_are_brought_back_one_by_one",
        "LOAD_EXECUTIONS_PER_PASS_MAX": "test_a_crowd_of_deadlines_is_met_in_portions",
        "PARKED_RESIDENT_SIZE_BYTES_MAX": "test_large_states_leave_memory_earlier",
        "RESIDENT_EXECUTIONS_MAX": "test_recovery_brings_back_no_more_than_there_is_room_for",
    },
    "integration/test_engine_fairness.py": {
        "EVENTS_PER_EXECUTION_SIZE_BYTES_MAX": "test_execution_whose_events_take_too_much_is_cancelled",
        "LONG_EVENTS_SIZE_BYTES": "test_endless_loops_share_an_allowance",
        "LONG_EVENTS_SIZE_BYTES_PER_S_MAX": "test_endless_loops_share_an_allowance",
        "UNCOMMITTED_EXECUTIONS_MAX": "test_new_executions_that_wait_for_their_commit_are_bounded",
    },
    "integration/test_engine_faults.py": {
        "DISK_FREE_SHARE_MIN": "test_small_disk_is_ready_until_a_tenth_of_it_is_left",
        "DISK_FREE_SIZE_BYTES_MIN": "test_nearly_full_disk_is_told_as_the_reason",
        "SHARD_OPENING_SIZE_BYTES_MAX": "test_start_on_a_full_disk_waits_for_room",
    },
    "integration/test_engine_listeners.py": {
        **dict.fromkeys(
            (
                "EVENTS_FOLLOWED_PER_READ_MAX",
                "EVENTS_FOLLOW_PASS_S_MAX",
                "EVENT_TYPES_ABSENT_MAX",
                "INBOX_PAGE_EVENTS_MAX",
                "INBOX_PAGE_SIZE_BYTES_MAX",
                "INBOX_UNCOMMITTED_ROWS_MAX",
                "LISTENERS_LOADED_PER_PASS_MAX",
                "LISTENERS_OFFERED_TOGETHER_MAX",
                "MATCHERS_KEPT_MAX",
                "PASSED_FILTERS_KNOWN_MAX",
            ),
            "test_bounds_change_nothing_of_what_is_heard",
        ),
        "EVENTS_FOLLOW_INTERVAL_S": "test_event_that_nobody_was_told_of_is_found",
        "EVENTS_OFFERED_AT_START_MAX": "test_long_loop_over_many_kept_events",
        "EVENTS_POSITION_LAG_MAX": "test_shard_writes_down_how_far_it_has_come",
        "INBOX_ROWS_PER_LISTENER_MAX": "test_listener_that_is_slower_than_its_events_misses_none",
    },
    "integration/test_engine_listings.py": {
        "LISTINGS_AT_ONCE_MAX": "test_listings_at_once",
        "LISTING_RETRY_S": "test_listings_at_once",
        "LIST_DOCUMENTS_MAX": "test_name_of_many_documents_is_found_among_all",
        "LIST_ROWS_READ_MAX": "test_page_of_what_is_rare_ends_early",
    },
    "integration/test_waiting.py": {
        "WAITING_STATE_SIZE_BYTES_MAX": "test_what_a_large_state_waits_for_is_told_in_memory_only",
    },
    "integration/test_feed.py": {
        "FEED_CURSOR_INTERVAL_S": "test_a_filter_that_nothing_passes_gets_cursors",
        "FEED_INTERVAL_S": "test_a_follower_reads_now_and_then",
        "FEED_PAGES_KEPT_MAX": "test_followers_share_what_is_read",
        "FEED_ROWS_MAX": "test_a_reading_ends_at_its_bounds",
        "FEED_SIZE_BYTES_MAX": "test_a_reading_ends_at_its_bounds",
    },
    "integration/test_labels.py": {
        "LIST_DOCUMENT_METADATA_SIZE_BYTES_MAX": "test_metadata_of_a_document_is_shown",
    },
    "integration/test_engine_placement.py": {
        "IDS_COPY_SURPLUS_COUNT_MAX": "test_copy_of_ids_that_has_many_more_than_live_is_written_anew",
    },
    "integration/test_engine_progress.py": {
        "SUBSCRIPTION_FOLLOWERS_PER_TURN_MAX": "test_followers_of_one_execution_are_told_in_turns_of_the_loop",
        "SUBSCRIPTION_ROWS_DUE_MAX": "test_commits_that_come_faster_than_they_are_told",
        "SUBSCRIPTION_BACKLOG_EVENTS_MAX": "test_slow_subscriber_falls_back_to_the_store",
        "SUBSCRIPTION_BACKLOG_SIZE_BYTES_MAX": "test_slow_subscriber_falls_back_to_the_store",
        "SUBSCRIPTIONS_SIZE_BYTES_MAX": "test_subscribers_that_do_not_read_share_one_budget",
        "SUBSCRIPTION_PAGES_KEPT_MAX": "test_subscribers_of_one_execution_share_its_pages",
    },
    "integration/test_process_limits.py": {
        "BOOT_ATTEMPTS_MAX": "test_worker_that_takes_too_long_to_start",
        "BOOT_S_MAX": "test_worker_that_takes_too_long_to_start",
        "GARBAGE_THRESHOLDS": "test_worker_looks_for_garbage_rarely",
        "RESPAWN_STABLE_S": "test_crashes_in_a_row",
        "START_WAIT_S_MAX": "test_start_waits_for_a_port",
    },
    "integration/test_process_starts.py": {
        "DESCRIPTORS_MIN": "test_too_few_descriptors_are_refused",
        "DESCRIPTORS_PER_SHARD": "test_too_few_descriptors_are_refused",
        "DESCRIPTORS_PER_WORKER": "test_too_few_descriptors_are_refused",
        "FAILURE_SIZE_CHARS_MAX": "test_worker_that_cannot_start_later_leaves_its_siblings",
    },
    "integration/test_process_ports.py": {
        "PORT_WATCH_INTERVAL_S": "test_stranger_on_the_port_is_named",
    },
    "integration/test_processes.py": {
        "DRAIN_MARGIN_S": "test_draining_is_visible_and_bounded",
        "PING_INTERVAL_S": "test_silent_worker_is_killed",
        "PING_TIMEOUT_S": "test_silent_worker_is_killed",
        "STOPPED_LOOKS": "test_stopped_worker_is_replaced_soon",
        "STOPPED_LOOK_INTERVAL_S": "test_stopped_worker_is_replaced_soon",
        "RESPAWN_WEB_DELAY_S_MAX": "test_web_process_that_dies_over_and_over",
        "RESPAWN_DELAY_S_MAX": "test_delays_between_respawns_double_up_to_the_bound",
        "RESPAWN_DELAY_S_MIN": "test_delays_between_respawns_double_up_to_the_bound",
    },
    "integration/test_router.py": {
        "PLACEMENT_BACKLOG_MIN": "test_new_work_is_placed_at_an_idle_worker_that_answers",
        "ROUTER_ANSWERS_SIZE_BYTES_MAX": "test_answers_of_a_worker_that_does_not_read_are_bounded",
        "ROUTER_CLIENT_PARTS": "test_client_has_a_part_of_a_link",
        "ROUTER_CREDIT_SIZE_BYTES": "test_large_messages_cost_more_credit",
        "ROUTER_FLUSH_SIZE_BYTES": "test_frame_that_is_full_leaves_at_once",
        "ROUTER_FRAME_SIZE_BYTES_MAX": "test_garbage_closes_the_link_only",
        "ROUTER_LINK_CREDITS": "test_streams_of_a_link_share_its_credit",
        "ROUTER_MESSAGES_PER_TURN_MAX": "test_messages_of_a_frame_are_spread_over_turns",
        "ROUTER_OWNER_WAIT_S_MAX": "test_waiting_ends_at_the_deadline",
        "ROUTER_PING_LOOKS": "test_pings_are_rare",
        "ROUTER_RECONNECT_INTERVAL_S": "test_request_waits_for_an_owner_that_is_down",
        "ROUTER_REQUESTS_MAX": "test_abandoned_wait_frees_its_place",
        "ROUTER_REQUESTS_SIZE_BYTES_MAX": "test_bytes_that_wait_for_an_owner_are_bounded",
        "ROUTER_RESERVE_REQUESTS_MAX": "test_commands_have_a_reserve",
        "ROUTER_RESERVE_SIZE_BYTES_MAX": "test_bytes_of_commands_and_streams_are_bounded",
        "ROUTER_RETRY_INTERVAL_S": "test_refusal_for_now_is_asked_again",
        "ROUTER_STREAMS_MAX": "test_streams_take_no_place_of_requests",
        "ROUTER_STREAMS_SIZE_BYTES_MAX": "test_bytes_of_commands_and_streams_are_bounded",
        "ROUTER_STREAM_CREDITS_MAX": "test_unread_stream_stops_its_owner",
        "ROUTER_STREAM_CREDITS_MIN": "test_streams_of_a_link_share_its_credit",
    },
    "unit/test_placement.py": {
        "PLACEMENT_BATCH_COUNT_MIN": "test_single_work_goes_to_the_least_busy_only_from_one_that_is_far_busier",
        "PLACEMENT_PEAK_AGE_S_MAX": "test_worker_that_has_just_had_much_to_do_counts_as_busy",
        "PLACEMENT_KNOWN_INTERVAL_S": "test_start_waits_for_what_other_shards_hold_but_not_for_ever",
        "PLACEMENT_KNOWN_WAIT_S_MAX": "test_start_waits_for_what_other_shards_hold_but_not_for_ever",
    },
    "integration/test_service.py": {
        "BATCH_EXECUTIONS_MAX": "test_an_empty_batch_and_one_too_large",
        "REPLY_SIZE_BYTES_MAX": "test_a_reply_of_events_ends_before_clients_refuse_it",
        "REQUEST_SIZE_BYTES_MAX": "test_a_request_over_the_message_bound_is_refused",
    },
    "integration/test_service_forwarding.py": {
        "PLACEMENT_ATTEMPTS_MAX": "test_an_id_that_everybody_says_another_has_is_given_up",
        "SUBSCRIPTION_RESUME_INTERVAL_S_MIN": "test_a_stream_whose_owner_stays_away_is_unavailable",
    },
    "transport/test_patience.py": {
        "GRPC_CONNECTIONS_FREE_PART": "test_idle_connections_give_way",
        "GRPC_CONNECTIONS_LOOK_INTERVAL_S": "test_idle_connections_give_way",
        "GRPC_CONNECTIONS_LOOK_REST": "test_idle_connections_are_looked_for_rarely",
        "GRPC_CONNECTIONS_MAX": "test_connections_of_a_worker",
        "GRPC_CONNECTION_AGE_MS_MAX": "test_old_connections_move_to_where_there_is_room",
        "GRPC_CONNECTION_IDLE_MS_MAX": "test_connection_without_calls",
        "GRPC_CONNECTION_QUIET_MS_MIN": "test_connections_that_have_just_been_used_stay",
        "GRPC_GREETING_TIMEOUT_MS": "test_connection_that_says_nothing",
    },
    "integration/test_service_limits.py": {
        "BATCH_EXECUTIONS_PER_TURN_MAX": "test_executions_of_a_batch_between_two_turns",
        "BATCH_STATUS_DETAILS_SIZE_BYTES_MAX": "test_details_of_a_refusal_in_a_batch",
        "BATCH_TURN_S_MAX": "test_large_executions_of_a_batch_between_two_turns",
        "CLIENT_NAME_SIZE_BYTES_MAX": "test_name_of_a_client",
        "EVENTS_REPLAY_COUNT_MAX": "test_events_of_a_reply",
        "GRPC_CALLS_OPEN_MAX": "test_calls_that_are_not_answered_yet",
        "GRPC_CALLS_REQUESTED_AHEAD": "test_calls_requested_ahead",
        "GRPC_CALLS_RESERVED": "test_calls_that_are_not_answered_yet",
        "GRPC_CONVERSATIONS_MAX": "test_conversations_of_a_worker",
        "GRPC_REQUESTS_COMING_MAX": "test_requests_on_their_way",
        "GRPC_REQUESTS_SIZE_BYTES_MAX": "test_requests_that_wait_for_their_answers",
        "GRPC_REQUEST_LATE_S": "test_requests_on_their_way",
        "GRPC_STREAMS_OPEN_MAX": "test_streams_of_a_worker_and_of_a_client",
        "GRPC_STREAMS_PER_CLIENT_MAX": "test_streams_of_a_worker_and_of_a_client",
        "GRPC_CALLS_WAITING_MAX": "test_calls_that_wait_inside_the_transport",
        "GRPC_CLIENT_PING_INTERVAL_MS_MIN": "test_client_that_pings_too_often_is_sent_away",
        "GRPC_KEEPALIVE_TIMEOUT_MS": "test_silent_connection_is_asked_and_then_closed",
        "GRPC_KEEPALIVE_TIME_MS": "test_silent_connection_is_asked_and_then_closed",
        "GRPC_STOP_PAUSE_S": "test_pause_of_a_stopping_server",
        "GRPC_STREAMS_PER_CONNECTION_MAX": "test_calls_open_on_one_connection",
        "LIST_PAGE_SIZE_MAX": "test_executions_of_a_page",
        "REASON_SIZE_BYTES_MAX": "test_reason_of_a_command",
        "REPLY_MESSAGE_SIZE_BYTES_MAX": "test_reply_larger_than_a_message",
        "REPLY_WARNINGS_SIZE_BYTES_MAX": "test_warnings_of_an_answer",
    },
    "simulation/test_callback_pace.py": {
        "CALLBACK_ATTEMPTS_QUICK_MAX": "test_quick_attempts_and_their_pauses",
        "CALLBACK_BACKOFF_MS_MIN": "test_quick_attempts_and_their_pauses",
        "CALLBACK_BATCHES_IN_FLIGHT_MAX": "test_batches_under_way_at_once",
        "CALLBACK_BATCH_AGE_MS_MAX": "test_event_waits_for_company",
        "CALLBACK_BATCH_EVENTS_MAX": "test_what_one_batch_holds",
        "CALLBACK_BATCH_RETRY_S": "test_batches_are_tried_again_after_a_while",
        "CALLBACK_BATCH_SIZE_BYTES_MAX": "test_what_one_batch_holds",
        "CALLBACK_IN_FLIGHT_MAX": "test_single_events_under_way_at_once",
        "CALLBACK_PAGE_ROWS_MAX": "test_rows_that_are_read_back_at_once",
    },
    "simulation/test_drain_pace.py": {
        "DRAIN_CALLBACKS_S_MAX": "test_parts_of_the_drain_timeout",
        "DRAIN_CALLS_S_MAX": "test_parts_of_the_drain_timeout",
        "DRAIN_WAITING_S_MAX": "test_parts_of_the_drain_timeout",
    },
    "simulation/test_engine_pace.py": {
        "ACKNOWLEDGEMENT_DELAY_MS_MAX": "test_acknowledgement_waits_for_a_commit_to_travel_with",
        "BACKLOG_INTERVAL_S": "test_backlog_without_room_is_looked_at_again_soon",
        "COMMIT_EXECUTIONS_MAX": "test_what_one_commit_gathers",
        "COMMIT_GATHER_MS_MAX": "test_what_one_commit_gathers",
        "COMMIT_RETRY_DELAY_S_MAX": "test_pauses_between_attempts_to_commit",
        "COMMIT_RETRY_DELAY_S_MIN": "test_pauses_between_attempts_to_commit",
        "ENGINE_PASS_MS": "test_turns_of_executions_between_two_turns_of_the_loop",
        "EVENTS_REPLAY_SIZE_BYTES_MAX": "test_pages_that_are_read_for_a_subscriber",
        "EXECUTION_EVENTS_UNCOMMITTED_SIZE_BYTES_MAX": "test_events_of_a_loop_that_await_their_commit",
        "LOAD_INTERVAL_S": "test_deadlines_are_looked_for_at_intervals",
        "PLANS_BY_KEY_MAX": "test_documents_that_a_shard_finds_again",
        "PLAN_KEYS_KNOWN_MAX": "test_documents_that_a_shard_finds_again",
        "RETENTION_INTERVAL_S": "test_ended_retention_is_looked_for_at_intervals",
        "SHARD_OWNER_WAIT_S_MAX": "test_predecessor_that_does_not_let_go_of_a_shard",
        "TIMER_LOOKAHEAD_MS": "test_deadline_brings_an_execution_back_shortly_before",
        "TIMER_RECHECK_S_MAX": "test_step_of_the_wall_clock_is_noticed",
    },
    "simulation/test_submission_pace.py": {
        "COMPILED_UNSPARED_SIZE_CHARS_MAX": "test_plans_are_spared_the_search_for_garbage",
        "COMPILE_AT_ONCE_MS": "test_small_documents_are_compiled_at_once_while_the_turn_lasts",
        "COMPILE_PASS_MS": "test_compiling_takes_little_of_each_turn_of_the_loop",
        "COMPILE_STEP_BUDGET": "test_compiling_takes_little_of_each_turn_of_the_loop",
        "COMPILE_S_PER_CHAR": "test_documents_that_wait_are_bounded_and_another_client_has_room",
        "COMPILING_SIZE_CHARS_MAX": "test_documents_that_wait_are_bounded_and_another_client_has_room",
        "COMPILING_SIZE_CHARS_MIN": "test_documents_that_wait_are_bounded_and_another_client_has_room",
        "UNCOMMITTED_EXECUTION_SIZE_BYTES": "test_memory_of_what_waits_for_its_first_commit",
        "UNCOMMITTED_SIZE_BYTES_MAX": "test_memory_of_what_waits_for_its_first_commit",
        "UNCOMMITTED_SIZE_RETRY_S": "test_memory_of_what_waits_for_its_first_commit",
    },
    "unit/test_breaker.py": {
        "CALLBACK_REFUSALS_MAX": "test_refusals_in_a_row_open_it_and_a_success_between_them_does_not",
        "CALLBACK_SUSPENSION_S_MAX": "test_failed_probes_double_the_pause_up_to_its_bound_and_success_resets_it",
        "CALLBACK_SUSPENSION_S_MIN": "test_a_failure_opens_it_until_the_pause_is_over_then_one_probe_goes",
    },
    "unit/test_callback_queue.py": {
        "CALLBACK_CATCH_UP_EVENTS_MAX": "test_events_and_bytes_in_memory",
        "CALLBACK_LOOKUPS_MAX": "test_nothing_is_skipped_or_forgotten",
        "CALLBACK_POSITIONS_MAX": "test_nothing_is_skipped_or_forgotten",
        "CALLBACK_QUEUE_EVENTS_MAX": "test_events_and_bytes_in_memory",
        "CALLBACK_QUEUE_SIZE_BYTES_MAX": "test_events_and_bytes_in_memory",
    },
    "unit/test_decode.py": {
        "ENV_VARS_SIZE_BYTES_MAX": "test_other_fields_have_bounds_too",
        "EXECUTION_ID_SIZE_BYTES_MAX": "test_other_ids_are_refused",
        "INPUT_DEPTH_MAX": "test_input_that_nests_too_deep_is_refused",
        "INPUT_SIZE_BYTES_MAX": "test_input_over_its_bound_is_too_large",
        "LABELS_COUNT_MAX": "test_labels_within_their_bounds_are_taken_as_they_are",
        "LABEL_NAME_SIZE_BYTES_MAX": "test_labels_within_their_bounds_are_taken_as_they_are",
        "LABEL_VALUE_SIZE_BYTES_MAX": "test_labels_within_their_bounds_are_taken_as_they_are",
        "METADATA_SIZE_BYTES_MAX": "test_other_fields_have_bounds_too",
    },
    "unit/test_engine_limits.py": {
        "ADMISSION_LANDING_S": "test_executions_of_one_commit_land_together",
        "ADMISSION_STRICT_S": "test_judgement_outlasts_the_last_refusal",
        "CLIENT_EXECUTIONS_PER_S_MAX": "test_executions_of_a_client_in_a_second_unless_set_otherwise",
        "DAMAGES_KNOWN_MAX": "test_damages_that_are_told_once",
        "EXECUTIONS_MAX": "test_unfinished_executions_unless_set_otherwise",
        "PARKED_RESIDENT_MAX": "test_parked_executions_in_memory_unless_set_otherwise",
    },
    "unit/test_fair_shares.py": {
        "ADMISSION_BURST_COUNT_MAX": "test_engine_that_is_behind_refuses_who_has_most_in_it",
        "ADMISSION_BURST_S_MAX": "test_engine_that_is_behind_refuses_who_has_most_in_it",
        "ADMISSION_DELAY_S_MAX": "test_standing_queue_is_judged_until_nothing_is_refused",
        "ADMISSION_EXECUTIONS_MIN": "test_standing_queue_is_judged_until_nothing_is_refused",
        "OVERLOAD_BEGIN": "test_burst_is_no_overload_and_a_lasting_wait_is",
        "OVERLOAD_BURST_COUNT_MAX": "test_burst_is_no_overload_and_a_lasting_wait_is",
        "SHORT_HANDED_DELAY_S_MAX": "test_what_piles_up_while_a_worker_is_replaced_is_no_overload",
        "OVERLOAD_BURST_S_MAX": "test_burst_is_no_overload_and_a_lasting_wait_is",
        "OVERLOAD_CATCH_UP": "test_burst_is_no_overload_and_a_lasting_wait_is",
        "OVERLOAD_DELAY_S_MAX": "test_burst_is_no_overload_and_a_lasting_wait_is",
    },
    "unit/test_large_values.py": {
        "LARGE_VALUE_SIZE_BYTES": "test_small_snapshot_stays_as_it_is",
        "SNAPSHOT_PIECES_MAX": "test_snapshot_that_is_cut_up_further_and_further_is_cut_anew",
        "SNAPSHOT_PIECE_SIZE_BYTES": "test_growing_list_and_wrapped_value_write_what_is_new",
        "SNAPSHOT_PIECE_SIZE_BYTES_MIN": "test_short_parts_are_written_with_the_row",
    },
    "unit/test_identities.py": {
        "IDENTITIES_BLOCK_COUNT": "test_damage_costs_no_more_than_a_block",
    },
    "unit/test_logs.py": {
        "LIBRARY_LOG_INTERVAL_S": "test_library_that_repeats_itself_is_counted",
        "LIBRARY_LOG_KINDS_MAX": "test_places_of_a_library_that_are_remembered",
        "LIBRARY_LOG_SIZE_CHARS_MAX": "test_long_text_of_a_library",
    },
    "unit/test_marks.py": {
        "DEATHS_IN_TURN_MAX": "test_third_death_without_progress_condemns",
        "SUSPECTS_MAX": "test_suspects_beyond_the_bound_give_way_to_the_worse_ones",
        "TURN_S_MAX": "test_what_a_turn_can_be_blamed_for",
    },
    "unit/test_metrics.py": {
        "METRIC_CELLS_MAX": "test_cells_end_at_their_bound",
        "METRIC_NOTE_SIZE_BYTES_MAX": "test_note_outlives_its_writer",
    },
    "unit/test_overload_limits.py": {
        "GRPC_EVENTS_PER_LOOK": "test_turn_in_which_calls_are_taken_up",
        "GRPC_TURN_SHARE": "test_turn_in_which_calls_are_taken_up",
        "GRPC_TURN_S_MAX": "test_turn_in_which_calls_are_taken_up",
        "GRPC_TURN_S_MIN": "test_turn_in_which_calls_are_taken_up",
        "OVERLOAD_DECREASE": "test_decreases_are_paced_and_end",
        "OVERLOAD_EXECUTIONS_PER_S_MIN": "test_decreases_are_paced_and_end",
        "OVERLOAD_INCREASE": "test_pace_returns_fast_then_slowly_until_fewer_come",
        "OVERLOAD_INTERVAL_S": "test_pace_changes_once_an_interval",
        "OVERLOAD_PATIENCE_S": "test_decreases_are_paced_and_end",
        "OVERLOAD_RELIEF": "test_pace_returns_fast_then_slowly_until_fewer_come",
        "OVERLOAD_RETRY_S_MAX": "test_delay_that_a_refusal_tells",
        "OVERLOAD_RETRY_S_MIN": "test_delay_that_a_refusal_tells",
        "OVERLOAD_RETURN": "test_pace_returns_fast_then_slowly_until_fewer_come",
    },
    "unit/test_openapi_requests.py": {
        "OPENAPI_PARAMETERS_MAX": "test_documents_that_are_none",
        "OPENAPI_REFERENCES_MAX": "test_documents_that_are_none",
        "OPENAPI_SCHEMAS_MAX": "test_circles_of_schemas_hold_nobody",
    },
    "integration/test_call_openapi.py": {
        "OPENAPI_DOCUMENTS_KEPT_SIZE_CHARS_MAX": "test_the_documents_that_are_kept_are_bounded_by_their_size",
        "OPENAPI_OPERATIONS_KEPT_MAX": "test_operations_are_kept_by_the_text_of_their_document",
    },
    "unit/test_http_content.py": {
        "HTTP_CODINGS_COUNT_MAX": "test_codings_of_one_body",
        "HTTP_CODING_MEMBERS_MAX": "test_members_of_a_gzip_body",
        "HTTP_RESPONSE_CONTAINERS_MAX": "test_arrays_and_objects_of_a_response",
    },
    "unit/test_retention.py": {
        "RETENTION_BATCH_EXECUTIONS_MAX": "test_deletions_keep_up_with_what_finishes",
    },
    "unit/test_store.py": {
        "COMMIT_SMALL_EXECUTIONS_MAX": "test_journal_is_folded_into_the_file_sooner_while_commits_are_small",
        "JOURNAL_PAGES_MAX": "test_journal_is_folded_into_the_file_sooner_while_commits_are_small",
        "JOURNAL_PAGES_QUIET_MAX": "test_journal_is_folded_into_the_file_sooner_while_commits_are_small",
    },
    "unit/test_runtime.py": {
        "SOCKET_PATH_SIZE_BYTES_MAX": "test_longest_path",
    },
    "unit/test_status.py": {
        "STATUS_DETAILS_SIZE_BYTES_MAX": "test_any_refusal_fits_the_trailers_of_default_clients",
        "STATUS_MESSAGE_SIZE_BYTES_MAX": "test_any_refusal_fits_the_trailers_of_default_clients",
    },
    "wire/test_loads.py": {
        "CLIENTS_KNOWN_MAX": "test_only_so_many_buckets_are_kept",
    },
    "wire/test_placement.py": {
        "PLACEMENT_STRIPE_LOG2_MAX": "test_stripe_takes_as_many_as_it_may",
    },
    "wire/test_placement_processes.py": {
        "SHARED_LOCK_WAIT_S_MAX": "test_lock_of_a_stopped_process",
    },
}
"""By module of tests: each limit it reaches, with the test."""
LIMITS = sorted(name for name, value in vars(limits).items() if name.isupper() and not callable(value))


@cache
def _tests_of(module: str) -> set[str]:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    named = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return {name for name in named if name.startswith("test_")}


@pytest.mark.parametrize("module", REACHED)
def test_limits_are_reached_by_tests_that_exist(module: str) -> None:
    assert set(REACHED[module].values()) <= _tests_of(module)
    assert set(REACHED[module]) <= set(LIMITS)


def test_every_limit_is_reached() -> None:
    assert sorted(limit for reached in REACHED.values() for limit in reached) == LIMITS
