//! What channels promise, the same over every transport.
//!
//! A promise is a function that is told where its other side lives: on a thread of this process, or in another one.
//! Every promise is tested over every transport that is named at the end.

#[path = "conformance/barrier.rs"]
mod barrier;
#[path = "conformance/broadcast.rs"]
mod broadcast;
#[path = "conformance/bytes.rs"]
mod bytes;
#[path = "conformance/death.rs"]
mod death;
#[path = "conformance/moving.rs"]
mod moving;
#[path = "conformance/order.rs"]
mod order;
#[path = "conformance/select.rs"]
mod select;
#[path = "conformance/threads.rs"]
mod threads;

/// The promises. `for_each!(here shared_memory)` makes a test of each for that transport.
macro_rules! for_each {
    ($test:ident $transport:ident) => {
        mod order {
            $test!($transport order what_was_sent_before_a_return_arrives);
            $test!($transport order a_small_channel_carries_any_number);
            $test!($transport order each_end_is_told_after_all_that_was_sent);
            $test!($transport order a_sender_is_told_how_its_receiver_ended);
            $test!($transport order sending_needs_no_receiver_yet);
            $test!($transport order messages_of_any_size_travel);
            $test!($transport order many_senders_have_one_receiver);
            $test!($transport order a_message_is_lent_while_more_arrive);
            $test!($transport order messages_of_all_kinds);
            $test!($transport order blocking_twins);
            $test!($transport order a_ring_of_processes);
            $test!($transport order full_is_full_and_not_sooner);
        }
        mod bytes {
            $test!($transport bytes what_was_written_in_place_arrives);
            $test!($transport bytes a_batch_may_be_more_than_the_ring_holds);
            $test!($transport bytes a_batch_goes_on_after_large_values);
            $test!($transport bytes messages_are_passed_on_with_their_ends);
        }
        mod moving {
            $test!($transport moving a_message_with_ends_is_used_where_it_arrives);
            $test!($transport moving a_receiver_moves_on_and_on_and_loses_nothing);
            $test!($transport moving ends_pass_through_a_chain_of_processes_at_once);
            $test!($transport moving ends_in_messages_that_nobody_reads_are_reset);
        }
        mod broadcast {
            $test!($transport broadcast all_get_all_in_order);
            $test!($transport broadcast what_came_and_what_was_missed_are_what_was_sent);
            $test!($transport broadcast large_values_go_in_parts);
        }
        mod barrier {
            $test!($transport barrier nobody_runs_ahead);
            $test!($transport barrier members_are_released_whatever_the_barrier_does_next);
            $test!($transport barrier members_move_in_messages_until_they_are_used);
        }
        mod select {
            $test!($transport select thousands_are_idle_and_a_few_are_busy);
            $test!($transport select hundreds_of_senders_have_one_receiver);
        }
        mod threads {
            $test!($transport threads futures_that_are_given_up_lose_nothing);
            $test!($transport threads ends_move_between_the_threads_of_tokio);
        }
    };
}

/// The promises of processes that die, and of what the transport is.
macro_rules! for_each_between_processes {
    ($test:ident $transport:ident) => {
        mod death {
            $test!($transport death an_exit_right_after_the_last_send_loses_nothing);
            $test!($transport death a_kill_leaves_whole_messages_in_order);
            $test!($transport death the_transport_is_what_it_is_called);
        }
    };
}

/// A promise in a job of this machine.
macro_rules! here {
    (in_process $module:ident $promise:ident) => { here!(InProcess, $module $promise); };
    (shared_memory $module:ident $promise:ident) => { here!(Processes, $module $promise); };
    ($place:ident, $module:ident $promise:ident) => {
        #[archean::test]
        async fn $promise() -> anyhow::Result<()> {
            crate::$module::$promise(tests::place::Place::$place).await
        }
    };
}

/// A promise in a job whose processes are connected by links: that of processes of this machine, in such a job.
macro_rules! linked {
    ($links:ident $module:ident $promise:ident) => {
        #[test]
        fn $promise() {
            let name = concat!("shared_memory::", stringify!($module), "::", stringify!($promise));
            tests::place::run_linked(stringify!($links), name);
        }
    };
}

mod in_process {
    for_each!(here in_process);
}
mod shared_memory {
    for_each!(here shared_memory);
    for_each_between_processes!(here shared_memory);
}
mod plain {
    for_each!(linked plain);
    for_each_between_processes!(linked plain);
}
mod sealed {
    for_each!(linked sealed);
    for_each_between_processes!(linked sealed);
}
