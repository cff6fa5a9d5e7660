//! A queue in which tenants take turns, and within a tenant the first to come is the first to be served.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use claviger_store::id::TenantId;

pub(super) struct FairQueue<J> {
    /// Each tenant's jobs, by number. A tenant without a job is not in here.
    jobs: HashMap<TenantId, VecDeque<(u64, J)>>,
    /// The tenants that have jobs, each once, in the order of their turns.
    turns: VecDeque<TenantId>,
    length: usize,
    next_number: u64,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    tenant: TenantId,
    number: u64,
}

impl<J> FairQueue<J> {
    pub(super) fn new() -> Self {
        Self { jobs: HashMap::new(), turns: VecDeque::new(), length: 0, next_number: 0 }
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// How many jobs at most are done before a new one of this tenant: its own, and one of each other tenant for each of
    /// its turns.
    pub(super) fn ahead_of(&self, tenant: TenantId) -> usize {
        let own = self.jobs.get(&tenant).map_or(0, VecDeque::len);
        let others = self.turns.len() - usize::from(own > 0);
        (own + others * (own + 1)).min(self.length)
    }

    pub(super) fn push(&mut self, tenant: TenantId, job: J) -> Place {
        let number = self.next_number;
        self.next_number += 1;
        self.length += 1;
        let jobs = self.jobs.entry(tenant).or_default();
        if jobs.is_empty() {
            self.turns.push_back(tenant);
        }
        jobs.push_back((number, job));
        Place { tenant, number }
    }

    /// The first job of the tenant whose turn it is.
    pub(super) fn pop(&mut self) -> Option<J> {
        let tenant = self.turns.pop_front()?;
        let Entry::Occupied(mut jobs) = self.jobs.entry(tenant) else { return None };
        let (_, job) = jobs.get_mut().pop_front()?;
        self.length -= 1;
        if jobs.get().is_empty() {
            jobs.remove();
        } else {
            self.turns.push_back(tenant);
        }
        Some(job)
    }

    /// Takes a job out of the row, if it still stands there.
    pub(super) fn take_out(&mut self, place: Place) -> Option<J> {
        let Place { tenant, number } = place;
        let Entry::Occupied(mut jobs) = self.jobs.entry(tenant) else { return None };
        // Numbers only rise, so a tenant's jobs are in order of theirs.
        let at = jobs.get().binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, job) = jobs.get_mut().remove(at)?;
        self.length -= 1;
        if jobs.get().is_empty() {
            jobs.remove();
            self.turns.retain(|waiting| *waiting != tenant);
        }
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId(Uuid::from_u128(number))
    }

    fn drained(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn tenants_take_turns_and_each_is_served_in_order() {
        let mut queue = FairQueue::new();
        for job in ["a1", "a2", "a3", "a4"] {
            queue.push(tenant(1), job);
        }
        queue.push(tenant(2), "b1");
        queue.push(tenant(3), "c1");
        queue.push(tenant(2), "b2");
        assert_eq!(drained(&mut queue), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
        assert_eq!(queue.length(), 0);
        assert!(queue.jobs.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn a_tenant_that_comes_back_goes_to_the_end() {
        let mut queue = FairQueue::new();
        queue.push(tenant(1), "a1");
        queue.push(tenant(2), "b1");
        queue.push(tenant(2), "b2");
        assert_eq!(queue.pop(), Some("a1"));
        queue.push(tenant(1), "a2");
        assert_eq!(drained(&mut queue), ["b1", "a2", "b2"]);
    }

    #[test]
    fn a_job_that_left_leaves_nothing_behind() {
        let mut queue = FairQueue::new();
        let first = queue.push(tenant(1), "a1");
        let second = queue.push(tenant(1), "a2");
        let only = queue.push(tenant(2), "b1");
        assert_eq!(queue.take_out(only), Some("b1"));
        assert_eq!(queue.take_out(only), None);
        assert_eq!(queue.take_out(second), Some("a2"));
        assert_eq!(queue.length(), 1);
        queue.push(tenant(2), "b2");
        assert_eq!(drained(&mut queue), ["a1", "b2"]);
        assert_eq!(queue.take_out(first), None);
        assert!(queue.jobs.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn what_is_ahead_is_the_own_row_and_the_others_turns() {
        let mut queue = FairQueue::new();
        assert_eq!(queue.ahead_of(tenant(1)), 0);
        for _ in 0..200 {
            queue.push(tenant(1), "a");
        }
        assert_eq!(queue.ahead_of(tenant(1)), 200);
        assert_eq!(queue.ahead_of(tenant(2)), 1);
        for _ in 0..3 {
            queue.push(tenant(2), "b");
        }
        assert_eq!(queue.ahead_of(tenant(2)), 3 + 4);
        assert_eq!(queue.ahead_of(tenant(3)), 2);
        assert_eq!(queue.ahead_of(tenant(1)), 203);
        // What is said before is what happens: the new job of tenant 2 is done after seven others.
        queue.push(tenant(2), "the new one");
        assert_eq!(drained(&mut queue).iter().position(|job| *job == "the new one"), Some(7));
    }
}
