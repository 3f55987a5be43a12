//! ListGroups, DescribeGroups and DeleteGroups: what tools do with groups.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    GroupId, ListGroupsResponse,
};

use super::text;
use crate::group::MemberInfo;
use crate::state::Shared;

/// Every group by name.
pub(crate) fn list_groups(shared: &Shared) -> ListGroupsResponse {
    let state = shared.lock();
    let listed = state.groups.iter().map(|(name, entry)| {
        ListedGroup::default()
            .with_group_id(GroupId(text(name)))
            .with_protocol_type(text(entry.group.protocol_type()))
            .with_group_state(text(entry.group.state_name()))
    });
    ListGroupsResponse::default().with_groups(listed.collect())
}

/// The named groups with their members; a group nobody knows is `Dead`, as in Kafka.
pub(crate) fn describe_groups(
    shared: &Shared,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let state = shared.lock();
    let described = request.groups.into_iter().map(|name| {
        let entry = state.groups.get(&name);
        let blank = DescribedGroup::default().with_group_id(name.clone());
        match entry {
            None => blank.with_group_state(text("Dead")),
            Some(entry) => blank
                .with_group_state(text(entry.group.state_name()))
                .with_protocol_type(text(entry.group.protocol_type()))
                .with_protocol_data(text(entry.group.protocol()))
                .with_members(entry.group.members().map(member).collect()),
        }
    });
    DescribeGroupsResponse::default().with_groups(described.collect())
}

/// Forgets groups without members, each with its offsets.
pub(crate) fn delete_groups(shared: &Shared, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut state = shared.lock();
    let results = request.groups_names.into_iter().map(|name| {
        let outcome = state.groups.delete(&name);
        DeletableGroupResult::default()
            .with_group_id(name)
            .with_error_code(outcome.err().map_or(0, |error| error.code()))
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}

fn member(info: MemberInfo<'_>) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(text(info.member_id))
        .with_group_instance_id(info.instance.map(text))
        .with_client_id(text(info.client.id.as_str()))
        .with_client_host(text(info.client.host.as_str()))
        .with_member_metadata(info.metadata)
        .with_member_assignment(info.assignment)
}
