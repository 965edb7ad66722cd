// Lag and throughput as long as somebody has looked: ten minutes at most, as a chart and as a table.
import { Chart } from '../chart';
import { clock, span, zoneName } from '../time';
import { count, Empty, Table } from '../widgets';
import { samples, type Sample } from './state';

/** Longer than this without a look is a gap. */
const GAP = 5_000;
/** Throughput is told over so long: it comes in batches. */
const OVER = 10_000;

export function History() {
  const all = samples.value;
  if (all.length < 3) return null;
  const [times, lag, rate] = linesOf(all);
  const most = Math.max(...all.map((sample) => sample.lag));
  return (
    <>
      <h2>Since you look, ten minutes at most</h2>
      <Chart label={`Lag and throughput over time: ${count(all.at(-1)!.lag)} events behind now, at most ${count(most)}; the numbers stand in the table below`} times={times}
        series={[{ name: 'Behind', unit: 'events, left', colour: '--accent', values: lag }, { name: 'Consumed', unit: 'events/s, right', colour: '--wait', values: rate }]} />
      <details class="explain"><summary>The same minute by minute</summary><Minutes all={all} /></details>
    </>
  );
}

function linesOf(all: Sample[]): [number[], (number | null)[], (number | null)[]] {
  const [times, lag, rate]: [number[], (number | null)[], (number | null)[]] = [[], [], []];
  let first = 0;
  for (const [index, sample] of all.entries()) {
    const before = all[index - 1];
    if (before && sample.at - before.at > GAP) {
      times.push(before.at + 1);
      lag.push(null);
      rate.push(null);
      first = index;
    }
    while (all[first]!.at < sample.at - OVER) first += 1;
    times.push(sample.at);
    lag.push(sample.lag);
    rate.push(rateOf(all[first]!, sample));
  }
  return [times, lag, rate];
}

function rateOf(from: Sample, to: Sample): number | null {
  if (from.consumed === null || to.consumed === null || to.at - from.at < 1500) return null;
  return Math.max(0, (to.consumed - from.consumed) / ((to.at - from.at) / 1000));
}

function Minutes({ all }: { all: Sample[] }) {
  const minutes = new Map<number, Sample[]>();
  for (const sample of all) {
    const minute = Math.floor(sample.at / 60_000) * 60_000;
    minutes.set(minute, [...(minutes.get(minute) ?? []), sample]);
  }
  if (minutes.size === 0) return <Empty>Nothing has been seen yet.</Empty>;
  return (
    <Table label="Lag and throughput by minute">
      <thead><tr><th scope="col">Minute</th><th scope="col" class="num">Behind at most</th><th scope="col" class="num">Oldest of them at most</th><th scope="col" class="num">Consumed, events/s</th></tr></thead>
      <tbody>
        {[...minutes].reverse().map(([minute, seen]) => {
          const rate = rateOf(seen[0]!, seen.at(-1)!);
          return (
            <tr key={minute}>
              <td><time dateTime={new Date(minute).toISOString()}>{clock(minute).slice(0, 5)} <span class="zone">{zoneName(minute)}</span></time></td>
              <td class="num">{count(Math.max(...seen.map((sample) => sample.lag)))}</td>
              <td class="num">{span(Math.max(...seen.map((sample) => sample.seconds)))}</td>
              <td class="num">{rate === null ? '–' : count(Math.round(rate * 10) / 10)}</td>
            </tr>
          );
        })}
      </tbody>
    </Table>
  );
}
