// The first lines: whether to go back to bed.
import { signal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { useAsk, type Asked } from '../api';
import { Sparkline } from '../sparkline';
import { to } from '../router';
import { clock, now, span, Time, zoneName } from '../time';
import { CopyCurl, count, Failure, State } from '../widgets';
import { words, type Consumer, type Lags } from './model';

/** How far back the line goes, and how far what is kept. */
const LINE = 120_000;
const KEPT = 600_000;
/** An answer that is older is no news: all are asked for every few seconds. */
const SILENT = 20_000;

export interface Sample {
  at: number;
  /** Events that are not applied yet, and seconds since the oldest of them. */
  lag: number;
  seconds: number;
  consumed: number | null;
}

/** The last ten minutes of looking, also across a visit to another page. */
export const samples = signal<Sample[]>([]);

export interface Health {
  lags: Asked<Lags>;
  consumers: Asked<{ views: Consumer[] }>;
}

export interface Waiting {
  items: unknown[];
}

export function useHealth(asks: boolean): Health {
  const lags = useAsk<Lags>(asks ? '/ops/lags' : null, { every: 1000 });
  const consumers = useAsk<{ views: Consumer[] }>(asks ? '/ops/consumer' : null, { every: 2000 });
  const consumed = consumers.data?.views[0]?.conservation?.consumed ?? null;
  const seconds = oldest(lags.data);
  useEffect(() => {
    const lag = lags.data?.totalLag;
    if (lag === null || lag === undefined) return;
    const now = Date.now();
    samples.value = [...samples.value.filter((sample) => sample.at > now - KEPT), { at: now, lag, seconds, consumed }];
  }, [lags.at]);
  return { lags, consumers };
}

function oldest(lags: Lags | undefined): number {
  return Math.max(0, ...(lags?.partitions.map((partition) => partition.lagSeconds) ?? [0]));
}

/** Events a second, over the samples there are. */
function rate(): number | null {
  const known = samples.value.filter((sample) => sample.consumed !== null && sample.at > Date.now() - 30_000);
  const [first, last] = [known[0], known.at(-1)];
  if (!first || !last || last.at - first.at < 3000) return null;
  return Math.max(0, (last.consumed! - first.consumed!) / ((last.at - first.at) / 1000));
}

/** So many of what waits are looked for; of more only that there are more. */
export const MOST_COUNTED = 200;

export function atLeast(value: number | undefined, more = '+'): string {
  return value === MOST_COUNTED ? `${count(value)}${more}` : count(value);
}

type Verdict = { kind: 'good' | 'wait' | 'bad' | 'idle'; word: string; detail?: string };

/** `unknown`: what of it was not answered. Then nothing is called good. */
function verdict(consumer: Consumer | undefined, lags: Lags | undefined, held: number | undefined, letters: number | undefined, unknown: string): Verdict {
  if (!consumer || !lags) return { kind: 'idle', word: 'Not known yet' };
  const { state, reason, halt, conservation } = consumer;
  if (halt) return { kind: 'bad', word: `The view has stopped itself (${words(halt.code)})`, detail: `${halt.detail} ${halt.nextStep}` };
  if (state === 'halted') return { kind: 'bad', word: 'The view has stopped itself', detail: reason ?? undefined };
  if (conservation && !conservation.balanced) return { kind: 'bad', word: 'Records are not accounted for', detail: 'Consumed is not the sum of what became of the records. This is a defect; report it with the log.' };
  if (state.startsWith('waiting_for_')) return { kind: 'bad', word: `Waiting for ${{ database: 'Postgres', kafka: 'Kafka', registry: 'the schema registry' }[state.slice(12)] ?? words(state.slice(12))}`, detail: reason ?? undefined };
  const paused = consumer.partitions.filter((partition) => partition.paused);
  if (paused.length > 0) return { kind: 'wait', word: paused.length === consumer.partitions.length ? 'Standing still' : `${paused.length} of ${consumer.partitions.length} partitions stand still`, detail: paused[0]?.paused ?? undefined };
  const worst = lags.partitions.filter((partition) => partition.verdict !== 'ok');
  if (worst.length > 0) return { kind: worst.some((one) => one.verdict !== 'warn') ? 'bad' : 'wait', word: `${worst.length === 1 ? `Partition ${worst[0]!.partition} is` : `${worst.length} partitions are`} behind`, detail: worst[0]?.reason ?? undefined };
  if (state !== 'running') return { kind: 'wait', word: `The view is ${words(state)}`, detail: reason ?? undefined };
  if (unknown) return { kind: 'wait', word: 'Not all is known', detail: `The view runs as far as it was seen. ${unknown}` };
  if (held === undefined || letters === undefined) return { kind: 'idle', word: 'Running', detail: 'What waits is not known yet.' };
  const waits = [held > 0 && `${atLeast(held, ' or more')} ${held === 1 ? 'order waits' : 'orders wait'} for an event`, letters > 0 && `${atLeast(letters, ' or more')} ${letters === 1 ? 'record was' : 'records were'} refused`].filter(Boolean);
  if (waits.length > 0) return { kind: 'good', word: 'Running', detail: `${waits.join(', ')}; everything else is up to date.` };
  return { kind: 'good', word: 'Running', detail: 'Everything is up to date, and nothing waits.' };
}

/** `brief`: on a narrow screen the state alone, for what stands below is looked at. */
export function Top({ health, held, letters, brief }: { health: Health; held: Asked<Waiting>; letters: Asked<Waiting>; brief: boolean }) {
  const { lags, consumers } = health;
  const all: Asked<unknown>[] = [lags, consumers, held, letters];
  const failed = all.find((one) => one.error);
  const silent = all.find((one) => one.data !== undefined && now.value - one.at > SILENT);
  const [heldNow, lettersNow] = [held.data?.items.length, letters.data?.items.length];
  const consumer = consumers.data?.views.find((one) => one.view === lags.data?.view) ?? consumers.data?.views[0];
  const { kind, word, detail } = verdict(consumer, lags.data, heldNow, lettersNow, failed ? 'What could not be asked for is told above.' : silent ? `Of some of it there is no answer since ${clock(silent.at)} ${zoneName(silent.at)}.` : '');
  const seconds = oldest(lags.data);
  const events = rate();
  const conservation = consumer?.conservation;
  const sum = conservation ? conservation.applied + conservation.duplicate + conservation.late + conservation.conflict + conservation.parked + conservation.deadLettered : 0;
  const lagsThen = samples.value.filter(({ at }) => at > Date.now() - LINE).map(({ at, lag }) => ({ at, value: lag }));
  return (
    <>
      <div class="head">
        <h1>Operations</h1>
        <span class="muted">{lags.data?.view}{consumer && `, build ${consumer.build}, group ${consumer.group}`}</span>
        <div class="tools"><CopyCurl path="/ops/consumer" what="the consumers" /></div>
      </div>
      {failed?.error && <Failure problem={failed.error} again={failed.again}>{failed.data !== undefined && <p class="small">What is shown is as of {clock(failed.at)} {zoneName(failed.at)}.</p>}</Failure>}
      <p class="verdict" role="status"><State kind={kind}>{word}</State></p>
      {detail && <p><Said text={detail} /></p>}
      <dl class={brief ? 'facts brief' : 'facts'}>
        <div><dt>Behind</dt><dd class="big">{count(lags.data?.totalLag)} <span class="muted small">events</span></dd></div>
        <div><dt>Oldest of them</dt><dd class="big">{lags.data ? span(seconds) : '–'}</dd></div>
        <div><dt>Last two minutes</dt><dd><Sparkline values={lagsThen} ms={LINE} label={`Lag over two minutes: ${count(lags.data?.totalLag)} events now, at most ${count(Math.max(0, ...lagsThen.map(({ value }) => value)))}`} /></dd></div>
        <div><dt>Consumed</dt><dd class="big">{events === null ? '–' : count(Math.round(events * 10) / 10)} <span class="muted small">events/s</span></dd></div>
        <div><dt>Not accounted for</dt><dd class="big">{conservation ? <span class={conservation.balanced ? '' : 'state bad'}>{count(conservation.consumed - sum)}</span> : '–'} <span class="muted small">of {count(conservation?.consumed)}</span></dd></div>
        <div><dt>Held</dt><dd class="big"><a href={to(['operations', 'held'])}>{heldNow === undefined ? 'not known' : atLeast(heldNow)}</a></dd></div>
        <div><dt>Dead letters</dt><dd class="big"><a href={to(['operations', 'letters'])}>{lettersNow === undefined ? 'not known' : atLeast(lettersNow)}</a></dd></div>
        <div><dt>In this state since</dt><dd><Time at={consumer?.since} /></dd></div>
      </dl>
    </>
  );
}

/** What the API says in a sentence, with its times in the zone of the page. */
function Said({ text }: { text: string }) {
  const parts = `${text.charAt(0).toUpperCase()}${text.slice(1)}`.split(/(\d{4}-\d\d-\d\dT[\d:.]+Z)/);
  return <>{parts.map((part, index) => (index % 2 === 0 ? part : <Time key={index} at={part} />))}</>;
}
