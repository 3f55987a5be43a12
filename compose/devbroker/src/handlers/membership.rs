//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup: the wire side of [`crate::group`].

use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{code_of, text};
use crate::dispatch::Request;
use crate::group::{Caller, Client, Join, Joined, Membership, Protocol, Sync};
use crate::state::Shared;

/// The first JoinGroup version whose dynamic members are told their id first (KIP-394).
const ID_FIRST: i16 = 4;
/// The first LeaveGroup version with a list of members.
const LEAVE_MANY: i16 = 3;

/// Waits until the rebalance closes.
pub(crate) async fn join(
    shared: &Shared,
    request: JoinGroupRequest,
    frame: &Request,
    peer: &str,
) -> JoinGroupResponse {
    if request.group_id.is_empty() {
        return refused(ResponseError::InvalidGroupId);
    }
    let session = milliseconds(request.session_timeout_ms);
    let instance = owned(request.group_instance_id.as_ref());
    let prefix = instance.as_deref().unwrap_or(&frame.client_id);
    let fresh_id = format!("{prefix}-{}", Uuid::new_v4());
    let group_id = request.group_id.to_string();
    let build = |ticket| Join {
        member_id: request.member_id.to_string(),
        instance,
        client: Client {
            id: frame.client_id.clone(),
            host: peer.to_owned(),
        },
        session,
        // version 0 has no rebalance timeout
        rebalance: if request.rebalance_timeout_ms < 0 {
            session
        } else {
            milliseconds(request.rebalance_timeout_ms)
        },
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .into_iter()
            .map(|p| Protocol {
                name: p.name.to_string(),
                metadata: p.metadata,
            })
            .collect(),
        fresh_id,
        id_first: frame.version >= ID_FIRST,
        ticket,
    };
    let answer = shared.lock().groups.join(Instant::now(), &group_id, build);
    shared.reschedule();
    match answer.await {
        Ok(Joined::Member(membership)) => joined(membership),
        Ok(Joined::NeedsId(id)) => {
            refused(ResponseError::MemberIdRequired).with_member_id(text(id))
        }
        Ok(Joined::Refused(code)) => refused(code),
        Err(_) => refused(ResponseError::UnknownMemberId),
    }
}

fn refused(code: ResponseError) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(code.code())
        .with_generation_id(-1)
        .with_protocol_name(Some(StrBytes::default()))
}

fn joined(membership: Membership) -> JoinGroupResponse {
    let member = |(id, instance, metadata): (String, Option<String>, _)| {
        JoinGroupResponseMember::default()
            .with_member_id(text(id))
            .with_group_instance_id(instance.map(text))
            .with_metadata(metadata)
    };
    JoinGroupResponse::default()
        .with_generation_id(membership.generation)
        .with_protocol_name(Some(text(membership.protocol)))
        .with_leader(text(membership.leader))
        .with_member_id(text(membership.member_id))
        .with_members(membership.members.into_iter().map(member).collect())
}

/// Waits until the leader has sent the assignments.
pub(crate) async fn sync(shared: &Shared, request: SyncGroupRequest) -> SyncGroupResponse {
    let build = |ticket| Sync {
        caller: Caller {
            member_id: &request.member_id,
            instance: request.group_instance_id.as_deref(),
            generation: request.generation_id,
        },
        assignments: request
            .assignments
            .iter()
            .map(|a| (a.member_id.to_string(), a.assignment.clone()))
            .collect(),
        ticket,
    };
    let answer = shared
        .lock()
        .groups
        .sync(Instant::now(), &request.group_id, build);
    shared.reschedule();
    let result = match answer {
        Some(answer) => answer
            .await
            .unwrap_or(Err(ResponseError::RebalanceInProgress)),
        None => Err(ResponseError::UnknownMemberId),
    };
    SyncGroupResponse::default()
        .with_error_code(code_of(&result))
        .with_assignment(result.unwrap_or_default())
}

/// A sign of life.
pub(crate) fn heartbeat(shared: &Shared, request: HeartbeatRequest) -> HeartbeatResponse {
    let caller = Caller {
        member_id: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let now = Instant::now();
    let result = shared
        .lock()
        .groups
        .call(&request.group_id, |group| group.heartbeat(now, caller));
    HeartbeatResponse::default().with_error_code(code_of(&result))
}

/// One or several members leave.
pub(crate) fn leave(
    shared: &Shared,
    request: LeaveGroupRequest,
    version: i16,
) -> LeaveGroupResponse {
    let now = Instant::now();
    let leave = |member_id: &str, instance: Option<&str>| {
        let result = shared.lock().groups.call(&request.group_id, |group| {
            group.leave(now, member_id, instance)
        });
        code_of(&result)
    };
    let response = if version < LEAVE_MANY {
        LeaveGroupResponse::default().with_error_code(leave(&request.member_id, None))
    } else {
        let member = |member: &kafka_protocol::messages::leave_group_request::MemberIdentity| {
            MemberResponse::default()
                .with_member_id(member.member_id.clone())
                .with_group_instance_id(member.group_instance_id.clone())
                .with_error_code(leave(
                    &member.member_id,
                    member.group_instance_id.as_deref(),
                ))
        };
        LeaveGroupResponse::default().with_members(request.members.iter().map(member).collect())
    };
    shared.reschedule();
    response
}

fn milliseconds(value: i32) -> Duration {
    Duration::from_millis(value.max(0).unsigned_abs().into())
}

fn owned(value: Option<&StrBytes>) -> Option<String> {
    value.map(|value| value.to_string())
}
