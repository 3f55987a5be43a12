//! The group's rules, each with time in the test's hand.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

const SESSION: Duration = Duration::from_secs(6);
const REBALANCE: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);

/// A dynamic member without an id yet.
fn newcomer(fresh: &str, ticket: Ticket, metadata: &'static [u8]) -> Join {
    Join {
        member_id: String::new(),
        instance: None,
        client: Client::default(),
        session: SESSION,
        rebalance: REBALANCE,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol {
            name: "sticky".into(),
            metadata: Bytes::from_static(metadata),
        }],
        fresh_id: fresh.into(),
        id_first: false,
        ticket,
    }
}

/// A group, a clock and a source of tickets.
struct Table {
    group: Group,
    now: Instant,
    ticket: u64,
}

impl Table {
    fn new() -> Self {
        Self {
            group: Group::default(),
            now: Instant::now(),
            ticket: 0,
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.ticket += 1;
        Ticket(self.ticket)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.group.tick(self.now);
    }

    /// Sends a join as `member_id` and returns its ticket; a member without id gets `fresh`.
    fn join(&mut self, member_id: &str, instance: Option<&str>, fresh: &str) -> Ticket {
        self.join_with(member_id, instance, fresh, b"v1")
    }

    fn join_with(
        &mut self,
        member_id: &str,
        instance: Option<&str>,
        fresh: &str,
        metadata: &'static [u8],
    ) -> Ticket {
        let ticket = self.ticket();
        let join = Join {
            member_id: member_id.into(),
            instance: instance.map(Into::into),
            ..newcomer(fresh, ticket, metadata)
        };
        self.group.join(self.now, join);
        ticket
    }

    fn sync(
        &mut self,
        member_id: &str,
        generation: i32,
        assignments: &[(&str, &'static str)],
    ) -> Ticket {
        let ticket = self.ticket();
        let caller = Caller {
            member_id,
            instance: None,
            generation,
        };
        let assignments = assignments
            .iter()
            .map(|(id, a)| ((*id).to_owned(), Bytes::from_static(a.as_bytes())));
        self.group.sync(
            self.now,
            Sync {
                caller,
                assignments: assignments.collect(),
                ticket,
            },
        );
        ticket
    }

    fn heartbeat(&mut self, member_id: &str, generation: i32) -> Result<(), ResponseError> {
        self.group.heartbeat(
            self.now,
            Caller {
                member_id,
                instance: None,
                generation,
            },
        )
    }

    fn answers(&mut self) -> Vec<Answer> {
        self.group.take_answers()
    }

    /// A stable group of these members; the first is the leader, and all are in generation 1.
    fn stable(members: &[(&str, Option<&str>)]) -> Self {
        let mut table = Self::new();
        for (id, instance) in members {
            table.join("", *instance, id);
        }
        table.pass(INITIAL_DELAY);
        assert_eq!(table.answers().len(), members.len());
        for (id, _) in members {
            let all: Vec<_> = members.iter().map(|(id, _)| (*id, "share")).collect();
            table.sync(id, 1, &all);
        }
        let answers = table.answers();
        assert!(
            answers
                .iter()
                .all(|a| matches!(a, Answer::Sync(_, Ok(share)) if share == "share"))
        );
        assert_eq!(answers.len(), members.len());
        table
    }
}

fn membership(answer: &Answer) -> &Membership {
    match answer {
        Answer::Join(_, Joined::Member(membership)) => membership,
        other => panic!("not a membership: {other:?}"),
    }
}

#[test]
fn members_that_start_together_share_the_first_generation() {
    let mut table = Table::new();
    let (a, b) = (table.join("", None, "a"), table.join("", None, "b"));
    assert_eq!(table.answers(), []);
    assert_eq!(
        table.group.next_deadline(table.now),
        Some(table.now + INITIAL_DELAY)
    );
    table.pass(INITIAL_DELAY);
    let answers = table.answers();
    let (first, second) = (membership(&answers[0]), membership(&answers[1]));
    assert_eq!(
        (first.generation, first.leader.as_str(), first.members.len()),
        (1, "a", 2)
    );
    assert_eq!(
        (
            second.generation,
            second.leader.as_str(),
            second.members.len()
        ),
        (1, "a", 0)
    );
    assert_eq!(first.protocol, "sticky");

    let followers = table.sync("b", 1, &[]);
    assert_eq!(table.answers(), []);
    let leaders = table.sync("a", 1, &[("a", "p0"), ("b", "p1")]);
    let expected = [
        Answer::Sync(leaders, Ok(Bytes::from_static(b"p0"))),
        Answer::Sync(followers, Ok(Bytes::from_static(b"p1"))),
    ];
    assert_eq!(table.answers(), expected);
    assert_eq!(table.group.state_name(), "Stable");
    assert!(a < b);
}

#[test]
fn a_dynamic_member_may_have_to_ask_for_its_id_first() {
    let mut table = Table::new();
    let ticket = table.ticket();
    let join = Join {
        id_first: true,
        ..newcomer("a", ticket, b"v1")
    };
    table.group.join(table.now, join);
    assert_eq!(
        table.answers(),
        [Answer::Join(ticket, Joined::NeedsId("a".into()))]
    );
    table.join("a", None, "");
    table.pass(INITIAL_DELAY);
    assert_eq!(membership(&table.answers()[0]).member_id, "a");

    let stranger = table.join("never-handed-out", None, "");
    let refused = Joined::Refused(ResponseError::UnknownMemberId);
    assert_eq!(table.answers(), [Answer::Join(stranger, refused)]);
}

#[test]
fn a_newcomer_makes_the_others_join_again() {
    let mut table = Table::stable(&[("a", None)]);
    table.join("", None, "b");
    assert_eq!(table.answers(), []);
    assert_eq!(
        table.heartbeat("a", 1),
        Err(ResponseError::RebalanceInProgress)
    );
    table.join_with("a", None, "", b"v2");
    let answers = table.answers();
    assert_eq!(answers.len(), 2);
    assert_eq!(membership(&answers[0]).generation, 2);
    assert_eq!(
        table.heartbeat("a", 1),
        Err(ResponseError::IllegalGeneration)
    );
    assert_eq!(table.heartbeat("a", 2), Ok(()));
}

#[test]
fn a_member_that_does_not_join_again_is_dropped_at_the_deadline() {
    let mut table = Table::stable(&[("a", None), ("b", None)]);
    table.join("", None, "c");
    table.join("b", None, "");
    for _ in 0..4 {
        table.pass(REBALANCE / 5);
        assert_eq!(
            table.heartbeat("a", 1),
            Err(ResponseError::RebalanceInProgress)
        );
    }
    assert_eq!(table.answers(), []);
    table.pass(REBALANCE / 5);
    let answers = table.answers();
    assert_eq!(answers.len(), 2);
    assert_eq!(membership(&answers[0]).leader, "b");
    assert_eq!(table.heartbeat("a", 2), Err(ResponseError::UnknownMemberId));
}

#[test]
fn silent_members_lose_their_place_and_lively_ones_keep_it() {
    let mut table = Table::stable(&[("a", None), ("b", None)]);
    table.pass(SESSION - MS);
    assert_eq!(table.heartbeat("a", 1), Ok(()));
    table.pass(MS);
    assert_eq!(table.heartbeat("b", 1), Err(ResponseError::UnknownMemberId));
    assert_eq!(
        table.heartbeat("a", 1),
        Err(ResponseError::RebalanceInProgress)
    );
    table.pass(SESSION);
    assert_eq!(table.group.state_name(), "Empty");
}

#[test]
fn a_member_whose_call_we_hold_does_not_expire() {
    let mut table = Table::stable(&[("a", None), ("b", None)]);
    table.join_with("b", None, "", b"v2");
    for _ in 0..3 {
        table.pass(SESSION / 2);
        assert_eq!(
            table.heartbeat("a", 1),
            Err(ResponseError::RebalanceInProgress)
        );
    }
    table.join("a", None, "");
    assert_eq!(table.answers().len(), 2);
}

#[test]
fn leaving_hands_over_at_once() {
    let mut table = Table::stable(&[("a", None), ("b", None)]);
    assert_eq!(table.group.leave(table.now, "a", None), Ok(()));
    assert_eq!(
        table.group.leave(table.now, "a", None),
        Err(ResponseError::UnknownMemberId)
    );
    table.join("b", None, "");
    let answers = table.answers();
    let membership = membership(&answers[0]);
    assert_eq!(
        (
            membership.generation,
            membership.leader.as_str(),
            membership.members.len()
        ),
        (2, "b", 1)
    );
    assert_eq!(table.group.leave(table.now, "b", None), Ok(()));
    assert_eq!(table.group.state_name(), "Empty");
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut table = Table::stable(&[("a", Some("host-1")), ("b", Some("host-2"))]);
    let back = table.join_with("", Some("host-1"), "a2", b"after restart");
    let answers = table.answers();
    assert!(matches!(&answers[0], Answer::Join(ticket, _) if *ticket == back));
    let membership = membership(&answers[0]);
    // the old leader's id: the member that is back must not assign anew
    assert_eq!(
        (membership.generation, membership.leader.as_str()),
        (1, "a")
    );
    assert_eq!(
        (membership.member_id.as_str(), membership.members.len()),
        ("a2", 0)
    );
    let synced = table.sync("a2", 1, &[]);
    assert_eq!(
        table.answers(),
        [Answer::Sync(synced, Ok(Bytes::from_static(b"share")))]
    );
    assert_eq!(table.heartbeat("b", 1), Ok(()));
    assert_eq!(table.group.state_name(), "Stable");
}

#[test]
fn the_replaced_static_member_is_fenced() {
    let mut table = Table::stable(&[("a", Some("host-1"))]);
    table.join("", Some("host-1"), "a2");
    let old = Caller {
        member_id: "a",
        instance: Some("host-1"),
        generation: 1,
    };
    assert_eq!(
        table.group.heartbeat(table.now, old),
        Err(ResponseError::FencedInstanceId)
    );
    assert_eq!(
        table.group.may_commit(table.now, old),
        Err(ResponseError::FencedInstanceId)
    );
    assert_eq!(
        table.group.leave(table.now, "a", Some("host-1")),
        Err(ResponseError::FencedInstanceId)
    );
    let refused = table.join("a", Some("host-1"), "");
    let expected = Answer::Join(refused, Joined::Refused(ResponseError::FencedInstanceId));
    assert_eq!(table.answers().pop(), Some(expected));
    let new = Caller {
        member_id: "a2",
        ..old
    };
    assert_eq!(table.group.heartbeat(table.now, new), Ok(()));
}

#[test]
fn a_static_member_replaced_while_it_waits_is_told_so() {
    let mut table = Table::new();
    let first = table.join("", Some("host-1"), "a");
    table.join("", Some("host-1"), "a2");
    let fenced = Joined::Refused(ResponseError::FencedInstanceId);
    assert_eq!(table.answers(), [Answer::Join(first, fenced)]);
    table.pass(INITIAL_DELAY);
    assert_eq!(membership(&table.answers()[0]).member_id, "a2");
}

#[test]
fn a_static_member_that_is_away_keeps_its_share_until_its_session_ends() {
    let mut table = Table::stable(&[("a", None), ("s", Some("host-1"))]);
    table.pass(SESSION - MS);
    assert_eq!(table.heartbeat("a", 1), Ok(()));
    assert_eq!(table.group.members().count(), 2);
    table.pass(MS);
    assert_eq!(table.group.members().count(), 1);
    assert_eq!(
        table.heartbeat("a", 1),
        Err(ResponseError::RebalanceInProgress)
    );
}

#[test]
fn a_tool_removes_a_static_member_by_its_instance_id() {
    let mut table = Table::stable(&[("s", Some("host-1"))]);
    assert_eq!(
        table.group.leave(table.now, "", Some("host-2")),
        Err(ResponseError::UnknownMemberId)
    );
    assert_eq!(table.group.leave(table.now, "", Some("host-1")), Ok(()));
    assert_eq!(table.group.members().count(), 0);
}

#[test]
fn lost_answers_are_given_again() {
    let mut table = Table::stable(&[("a", None), ("b", None)]);
    let again = table.join("b", None, "");
    let answers = table.answers();
    assert!(matches!(&answers[0], Answer::Join(ticket, _) if *ticket == again));
    assert_eq!(membership(&answers[0]).generation, 1);
    let again = table.sync("b", 1, &[]);
    assert_eq!(
        table.answers(),
        [Answer::Sync(again, Ok(Bytes::from_static(b"share")))]
    );
    assert_eq!(table.group.state_name(), "Stable");
    // a leader that joins asks for a rebalance
    table.join("a", None, "");
    assert_eq!(table.group.state_name(), "PreparingRebalance");
}

#[test]
fn a_member_with_other_protocols_is_refused() {
    let mut table = Table::stable(&[("a", None)]);
    let ticket = table.ticket();
    let protocols = vec![Protocol {
        name: "range".into(),
        metadata: Bytes::new(),
    }];
    let join = Join {
        protocols,
        ..newcomer("b", ticket, b"v1")
    };
    table.group.join(table.now, join);
    let refused = Joined::Refused(ResponseError::InconsistentGroupProtocol);
    assert_eq!(table.answers(), [Answer::Join(ticket, refused)]);
    assert_eq!(table.heartbeat("a", 1), Ok(()));
}

#[test]
fn commits_are_for_members_of_this_generation() {
    let mut table = Table::new();
    let outside = Caller {
        member_id: "",
        instance: None,
        generation: -1,
    };
    assert_eq!(table.group.may_commit(table.now, outside), Ok(()));
    let mut table = Table::stable(&[("a", None)]);
    assert_eq!(
        table.group.may_commit(table.now, outside),
        Err(ResponseError::UnknownMemberId)
    );
    let member = Caller {
        member_id: "a",
        instance: None,
        generation: 1,
    };
    assert_eq!(table.group.may_commit(table.now, member), Ok(()));
    let old = Caller {
        generation: 0,
        ..member
    };
    assert_eq!(
        table.group.may_commit(table.now, old),
        Err(ResponseError::IllegalGeneration)
    );
    // while the others rejoin, what was read before may still be committed
    table.join("", None, "b");
    assert_eq!(table.group.may_commit(table.now, member), Ok(()));
}
