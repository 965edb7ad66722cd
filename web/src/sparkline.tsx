// A line of some numbers over time; what it shows also stands in its label.
export function Sparkline({ values, label, ms, least = 10, width = 120, height = 24 }: { values: { at: number; value: number }[]; label: string; ms: number; least?: number; width?: number; height?: number }) {
  // A few are no mountain.
  const top = Math.max(least, ...values.map(({ value }) => value));
  const end = values.at(-1)?.at ?? 0;
  const points = values.map(({ at, value }) => `${(width - 1 - ((end - at) / ms) * (width - 2)).toFixed(1)},${(height - 2 - (value / top) * (height - 4)).toFixed(1)}`);
  return (
    <svg class="sparkline" width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={label}>
      <polyline points={points.join(' ')} />
    </svg>
  );
}
