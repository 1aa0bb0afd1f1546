//! `auto`: costs of every block on every device, and memory limits -> the fastest plan found.

mod dispatch;
mod families;
mod improve;
mod instance;
mod layout;
mod policy;

use std::ops::Range;

use super::Plan;
use super::action::DeviceId;
use super::check::{CheckedPlan, check};
use super::placement::Placement;
use super::simulate::{BoundaryCost, Costs, Simulation, StageBytes, StageCost, fit, simulate};
use crate::error::{Error, Result};
use dispatch::Order;
use improve::{Budget, Scored, best_of, improve, score};
use instance::Instance;
use layout::{Estimator, Layout};

/// What a search may choose from.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchInput {
    /// `blocks[device][block]`: times and bytes of every block on every device.
    pub blocks: Vec<Vec<StageCost>>,
    /// Entry k is between block k and block k + 1, on different devices.
    pub crossings: Vec<BoundaryCost>,
    /// Where a cut is allowed: k is between block k - 1 and block k. Empty allows all.
    pub marks: Vec<usize>,
    /// How many microbatches a step has.
    pub microbatches: u32,
    /// Bytes of every device; the index is the device. Empty limits none.
    pub memory_limits: Vec<u64>,
}

/// The fastest plan found, proved, and the named family that it is to be compared with.
#[derive(Debug, Clone)]
pub struct Found {
    pub plan: CheckedPlan,
    /// The blocks of every stage.
    pub cuts: Vec<Range<usize>>,
    pub costs: Costs,
    pub simulation: Simulation,
    /// Nothing where no family fits in memory.
    pub best_family: Option<BestFamily>,
}

/// The named family with the smallest makespan under the same limits.
#[derive(Debug, Clone, PartialEq)]
pub struct BestFamily {
    pub name: String,
    pub makespan: f64,
}

/// Stages cost what their blocks cost together; working memory is that of the hungriest block.
pub fn sum_of_blocks(
    input: &SearchInput,
    placement: &Placement,
    cuts: &[Range<usize>],
) -> Result<Costs> {
    let stages = placement.stages.iter().zip(cuts).map(|(device, blocks)| {
        let blocks = &input.blocks[device.index()][blocks.clone()];
        blocks.iter().fold(StageCost::default(), |sum, block| sum_of_two(&sum, block))
    });
    Ok(Costs {
        stages: stages.collect(),
        boundaries: cuts[1..].iter().map(|blocks| input.crossings[blocks.start - 1]).collect(),
        buffers: Vec::new(),
    })
}

fn sum_of_two(one: &StageCost, other: &StageCost) -> StageCost {
    let (a, b) = (&one.bytes, &other.bytes);
    StageCost {
        forward: one.forward + other.forward,
        backward_input: one.backward_input + other.backward_input,
        backward_weight: one.backward_weight + other.backward_weight,
        bytes: StageBytes {
            fixed: a.fixed.saturating_add(b.fixed),
            forward_for_b: a.forward_for_b.saturating_add(b.forward_for_b),
            forward_for_w: a.forward_for_w.saturating_add(b.forward_for_w),
            backward_for_w: a.backward_for_w.saturating_add(b.backward_for_w),
            working_f: a.working_f.max(b.working_f),
            working_b: a.working_b.max(b.working_b),
            working_w: a.working_w.max(b.working_w),
        },
    }
}

pub type Price<'a> = &'a dyn Fn(&Placement, &[Range<usize>]) -> Result<Costs>;

pub fn search(input: &SearchInput, price: Price) -> Result<Found> {
    let mut search = Search::new(input, price);
    search.families()?;
    search.orders()?;
    search.result()
}

struct Proved {
    plan: CheckedPlan,
    cuts: Vec<Range<usize>>,
    costs: Costs,
    simulation: Simulation,
}

struct Search<'a> {
    input: &'a SearchInput,
    price: Price<'a>,
    estimator: Estimator<'a>,
    best: Option<Proved>,
    best_family: Option<BestFamily>,
    /// Of what did not fit, the one that exceeds its limits the least.
    nearest: Option<(u64, Error)>,
    budget: Budget,
    order: Order,
}

/// A layout at its costs, and the best policy for it so far.
struct Contender {
    layout: Layout,
    costs: Costs,
    reserved: Vec<u64>,
    scored: Scored,
}

const NEIGHBOURS: usize = 32;
const BUDGET: u64 = 5000;
const LEAST_BUDGET: u64 = 2_000_000;

impl<'a> Search<'a> {
    fn new(input: &'a SearchInput, price: Price<'a>) -> Self {
        let pairs = input.blocks.len() as u64 * u64::from(input.microbatches);
        Self {
            input,
            price,
            estimator: Estimator::new(input),
            best: None,
            best_family: None,
            nearest: None,
            budget: Budget((BUDGET * pairs).max(LEAST_BUDGET)),
            order: Order::default(),
        }
    }

    fn devices(&self) -> u32 {
        self.input.blocks.len() as u32
    }

    fn families(&mut self) -> Result<()> {
        for plan in families::plans(self.devices(), self.input.microbatches) {
            if !self.estimator.can_fill(plan.placement.stage_count()) {
                continue;
            }
            for layout in self.estimator.cuts_of(&plan.placement)? {
                let costs = (self.price)(&layout.placement, &layout.cuts)?;
                let Some(proved) = self.prove(plan.clone(), &layout, &costs)? else { continue };
                let makespan = proved.simulation.bubble.makespan;
                if self.best_family.as_ref().is_none_or(|best| makespan < best.makespan) {
                    self.best_family = Some(BestFamily { name: plan.schedule.clone(), makespan });
                }
                self.offer(proved);
            }
        }
        Ok(())
    }

    fn orders(&mut self) -> Result<()> {
        let mut contenders = self.contenders()?;
        contenders.sort_by(|a, b| a.scored.makespan.total_cmp(&b.scored.makespan));
        contenders.truncate(4);
        for contender in &mut contenders {
            self.try_many(contender);
        }
        contenders.sort_by(|a, b| a.scored.makespan.total_cmp(&b.scored.makespan));
        contenders.truncate(2);
        for (left, contender) in [2, 1].into_iter().zip(&mut contenders) {
            let mut share = self.budget.take(left);
            self.finish(contender, &mut share)?;
            self.budget.0 += share.0;
        }
        Ok(())
    }

    fn instance(&self, layout: &Layout, costs: &Costs, reserved: &[u64]) -> Instance {
        let limits = &self.input.memory_limits;
        Instance::new(&layout.placement, costs, self.input.microbatches, limits, reserved)
    }

    fn contenders(&mut self) -> Result<Vec<Contender>> {
        let p = self.input.blocks.len();
        let mut patterns: Vec<Vec<usize>> = vec![(0..p).collect()];
        if p > 1 {
            for v in 2..=4 {
                patterns.push((0..v * p).map(|s| s % p).collect());
            }
            patterns.push((0..p).chain((0..p).rev()).collect());
        }
        let mut contenders = Vec::new();
        let mut layouts = Budget(self.budget.0 / 4);
        for (i, pattern) in patterns.iter().enumerate() {
            if !self.estimator.can_fill(pattern.len()) {
                continue;
            }
            for layout in self.estimator.orders_of(pattern, &mut layouts.take(5 - i as u64))? {
                let costs = (self.price)(&layout.placement, &layout.cuts)?;
                let mut reserved = vec![0; p];
                let mut instance = self.instance(&layout, &costs, &reserved);
                let few = policy::few(&instance);
                for _ in 0..2 {
                    let budget = &mut self.budget;
                    let Some(scored) = best_of(&instance, few.clone(), &mut self.order, budget)
                    else {
                        break;
                    };
                    if !self.input.memory_limits.is_empty()
                        && costs
                            .boundaries
                            .iter()
                            .any(|b| b.activation_bytes > 0 || b.gradient_bytes > 0)
                        && reserved.iter().all(|r| *r == 0)
                    {
                        reserved = self.channel_bytes(&instance, &layout, &costs, &scored)?;
                        instance = self.instance(&layout, &costs, &reserved);
                        continue;
                    }
                    contenders.push(Contender { layout, costs, reserved, scored });
                    break;
                }
            }
        }
        Ok(contenders)
    }

    fn channel_bytes(
        &mut self,
        instance: &Instance,
        layout: &Layout,
        costs: &Costs,
        scored: &Scored,
    ) -> Result<Vec<u64>> {
        let plan = self.plan(instance, layout, scored);
        let simulation = simulate(&check(plan)?, costs)?;
        Ok(simulation.memory.iter().map(|device| device.channel_bytes).collect())
    }

    fn plan(&mut self, instance: &Instance, layout: &Layout, scored: &Scored) -> Plan {
        dispatch::dispatch(instance, &scored.policy, f64::INFINITY, &mut self.order)
            .expect("it ran before");
        Plan {
            schedule: "auto".into(),
            microbatches: self.input.microbatches,
            placement: layout.placement.clone(),
            lanes: self.order.lanes(),
        }
    }

    fn try_many(&mut self, contender: &mut Contender) {
        let instance = self.instance(&contender.layout, &contender.costs, &contender.reserved);
        let policies = policy::many(&instance);
        if let Some(found) = best_of(&instance, policies, &mut self.order, &mut self.budget) {
            if found.makespan < contender.scored.makespan {
                contender.scored = found;
            }
        }
    }

    fn finish(&mut self, contender: &mut Contender, budget: &mut Budget) -> Result<()> {
        let mut step = 1.0;
        loop {
            let instance = self.instance(&contender.layout, &contender.costs, &contender.reserved);
            let mut share = budget.take(2);
            improve(&instance, &mut contender.scored, step, &mut self.order, &mut share);
            budget.0 += share.0;
            step = 0.25;
            if !self.move_layout(contender, budget)? || budget.0 == 0 {
                break;
            }
        }
        for _ in 0..4 {
            let instance = self.instance(&contender.layout, &contender.costs, &contender.reserved);
            let plan = self.plan(&instance, &contender.layout, &contender.scored);
            let checked = check(plan.clone())?;
            let simulation = simulate(&checked, &contender.costs)?;
            let limits = &self.input.memory_limits;
            if let Some(proved) = self.prove(plan, &contender.layout, &contender.costs)? {
                self.offer(proved);
                break;
            }
            for (d, memory) in simulation.memory.iter().enumerate() {
                let excess = memory.peak_bytes().saturating_sub(limits[d]);
                contender.reserved[d] = contender.reserved[d].max(memory.channel_bytes) + excess;
            }
            let instance = self.instance(&contender.layout, &contender.costs, &contender.reserved);
            let policies = vec![contender.scored.policy.clone()];
            let Some(scored) = best_of(&instance, policies, &mut self.order, budget) else {
                break;
            };
            contender.scored = scored;
        }
        Ok(())
    }

    fn move_layout(&mut self, contender: &mut Contender, budget: &mut Budget) -> Result<bool> {
        let mut moved = false;
        loop {
            let mut again = false;
            for layout in self.estimator.neighbours(&contender.layout).into_iter().take(NEIGHBOURS) {
                if budget.0 == 0 {
                    return Ok(moved);
                }
                let costs = (self.price)(&layout.placement, &layout.cuts)?;
                let instance = self.instance(&layout, &costs, &contender.reserved);
                let best = Some(&contender.scored);
                let policy = &contender.scored.policy;
                if let Some(scored) = score(&instance, policy, best, &mut self.order, budget) {
                    (contender.layout, contender.costs, contender.scored) = (layout, costs, scored);
                    (moved, again) = (true, true);
                    break;
                }
            }
            if !again {
                return Ok(moved);
            }
        }
    }

    fn prove(&mut self, plan: Plan, layout: &Layout, costs: &Costs) -> Result<Option<Proved>> {
        let plan = check(plan)?;
        let simulation = simulate(&plan, costs)?;
        let limits = &self.input.memory_limits;
        if !limits.is_empty()
            && let Err(error) = fit(&simulation.memory, limits)
        {
            let excess = simulation
                .memory
                .iter()
                .zip(limits)
                .map(|(m, l)| m.peak_bytes().saturating_sub(*l))
                .max()
                .unwrap_or(0);
            if self.nearest.as_ref().is_none_or(|(least, _)| excess < *least) {
                self.nearest = Some((excess, error));
            }
            return Ok(None);
        }
        Ok(Some(Proved { plan, cuts: layout.cuts.clone(), costs: costs.clone(), simulation }))
    }

    fn offer(&mut self, proved: Proved) {
        let makespan = |proved: &Proved| proved.simulation.bubble.makespan;
        if self.best.as_ref().is_none_or(|best| makespan(&proved) < makespan(best)) {
            self.best = Some(proved);
        }
    }

    fn result(self) -> Result<Found> {
        match (self.best, self.nearest) {
            (Some(best), _) => Ok(Found {
                plan: best.plan,
                cuts: best.cuts,
                costs: best.costs,
                simulation: best.simulation,
                best_family: self.best_family,
            }),
            (None, Some((_, error))) => Err(error),
            (None, None) => Err(Error::plan("nothing fits")),
        }
    }
}
