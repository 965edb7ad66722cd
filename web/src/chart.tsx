// Numbers over time with axes and a cursor, by uPlot: a chunk of its own. A canvas follows neither theme nor zone, so it is made anew
// when one of them changes; for who cannot see it the page has the same numbers as a table.
import { useEffect, useRef, useState } from 'preact/hooks';
import type uPlot from 'uplot';
import { repaint } from './theme';
import { clock, zone, zoneName } from './time';

export interface Series {
  name: string;
  unit: string;
  colour: '--accent' | '--wait';
  /** One for each time; null is a gap. */
  values: (number | null)[];
}

interface Props {
  label: string;
  /** Milliseconds since 1970, rising. */
  times: number[];
  /** The first has its axis on the left, the second on the right. */
  series: [Series, Series];
}

const HEIGHT = 190;
/** Seconds that it shows at least. */
const LEAST = 120;
const digits = new Intl.NumberFormat('en-GB', { maximumFractionDigits: 1 });

export function Chart({ label, times, series }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const made = useRef<uPlot | null>(null);
  const latest = useRef({ times, series });
  latest.current = { times, series };
  const [at, setAt] = useState<number | null>(null);
  const [failed, setFailed] = useState(false);
  const turn = `${repaint.value} ${zone.value}`;
  useEffect(() => {
    const element = host.current;
    if (!element) return undefined;
    let gone = false;
    const width = new ResizeObserver(() => made.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    void import('uplot').then(({ default: Plot }) => {
      if (gone) return;
      made.current = new Plot(optionsOf(element, latest.current.series, setAt), dataOf(latest.current), element);
      width.observe(element);
    }, () => setFailed(true));
    return () => {
      gone = true;
      width.disconnect();
      made.current?.destroy();
      made.current = null;
    };
  }, [turn]);
  useEffect(() => made.current?.setData(dataOf({ times, series })), [times]);
  const moment = at === null ? undefined : times[at];
  return (
    <figure class="chart">
      <figcaption class="small">
        {series.map(({ name, unit, colour, values }) => (
          <span key={name} class={`line ${colour.slice(2)}`}>{name}{at !== null && moment !== undefined && <strong class="num"> {values[at] === null || values[at] === undefined ? '–' : digits.format(values[at])}</strong>} <span class="muted">{unit}</span></span>
        ))}
        <span class="muted num">{moment === undefined ? '' : `${clock(moment)} ${zoneName(moment)}`}</span>
      </figcaption>
      <div ref={host} class="plot" role="img" aria-label={label} />
      {failed && <p class="small muted">The chart could not be loaded; its numbers stand in the table.</p>}
    </figure>
  );
}

function dataOf({ times, series }: { times: number[]; series: Series[] }): uPlot.AlignedData {
  return [times.map((at) => at / 1000), ...series.map(({ values }) => values)] as uPlot.AlignedData;
}

/** A colour as the canvas wants it: what `light-dark` comes to here and now. */
function colourOf(element: HTMLElement, role: string): string {
  const probe = document.createElement('span');
  probe.style.color = `var(${role})`;
  element.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function optionsOf(element: HTMLElement, series: [Series, Series], setAt: (index: number | null) => void): uPlot.Options {
  const [line, muted] = [colourOf(element, '--line'), colourOf(element, '--muted')];
  const font = '11px system-ui, sans-serif';
  const looks = { stroke: muted, font, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 } };
  // Numbers begin at zero, and a few are no mountain.
  const range = (_: uPlot, _least: number, most: number): [number, number] => [0, Math.max(10, most * 1.1)];
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: true, range: (_, least, most) => [Math.min(least, most - LEAST), most] }, left: { range }, right: { range } },
    axes: [
      { ...looks, values: (_, ticks) => ticks.map((tick) => clock(tick * 1000).slice(0, tick % 60 === 0 ? 5 : 8)), space: 80, size: 28, incrs: [1, 5, 10, 15, 30, 60, 120, 300] },
      { ...looks, scale: 'left', size: 52, values: (_, ticks) => ticks.map((tick) => digits.format(tick)) },
      { ...looks, scale: 'right', side: 1, size: 52, grid: { show: false }, values: (_, ticks) => ticks.map((tick) => digits.format(tick)) },
    ],
    series: [{}, ...series.map(({ name, colour }, index) => ({ label: name, scale: index === 0 ? 'left' : 'right', stroke: colourOf(element, colour), width: 1.5, points: { show: false } }))],
    hooks: { setCursor: [(plot) => setAt(plot.cursor.idx ?? null)] },
  };
}
