// A board as Grafana's published schema has it, with what that schema leaves open filled in: each kind of panel has its
// plugin's own options and field settings, and every query is one of the InfluxDB data source in InfluxQL.
import type {
  AnnotationQuery, Dashboard, DataQuery, DataTransformerConfig, FieldConfigSource, GraphFieldConfig, Panel,
  TableFieldOptions, VariableModel,
} from '@grafana/schema';
import type { Options as Stat } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { Options as Table } from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type {
  FieldConfig as TimelineField, Options as Timeline,
} from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type { Options as TimeSeries } from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON holds the text of an enumeration's member, not the member.
type IsAny<T> = 0 extends 1 & T ? true : false;
type Plain<T> = IsAny<T> extends true ? unknown
  : T extends string ? `${T}`
  : T extends number | boolean | null | undefined ? T
  : T extends Array<infer U> ? Array<Plain<U>>
  : T extends object ? { [K in keyof T]: Plain<T[K]> }
  : T;

// Not in the published schema: what the InfluxDB data source reads, from Grafana's documentation of it.
interface Influx extends Omit<DataQuery, 'datasource'> {
  datasource: { type: 'influxdb'; uid: string };
  query: string;
  rawQuery: true;
  resultFormat: 'time_series' | 'table' | 'logs';
}
interface Target extends Influx { alias: string }
interface Marks extends Influx { textColumn: string; tagsColumn: string; fromAnnotations: true }

interface Of<Kind extends string, Options, Field> extends Omit<Plain<Panel>, 'type' | 'options' | 'fieldConfig' | 'targets' | 'transformations'> {
  type: Kind;
  title: string;
  description: string;
  options: Plain<Options>;
  targets: Target[];
  transformations: Array<Plain<Omit<DataTransformerConfig, 'options'>> & { options: Record<string, unknown> }>;
  fieldConfig: Omit<Plain<FieldConfigSource>, 'defaults'> & {
    defaults: Omit<Plain<FieldConfigSource['defaults']>, 'custom'> & { custom: Plain<Partial<Field>>; noValue: string; unit: string };
  };
}
type AnyPanel =
  | Of<'stat', Stat, object>
  | Of<'table', Table, TableFieldOptions>
  | Of<'timeseries', TimeSeries, GraphFieldConfig>
  | Of<'state-timeline', Timeline, TimelineField>;

export interface Board extends Omit<Plain<Dashboard>, 'panels' | 'annotations' | 'templating'> {
  panels: AnyPanel[];
  annotations: { list: Array<Omit<Plain<AnnotationQuery>, 'target'> & { target: Marks }> };
  templating: { list: Array<Plain<VariableModel>> };
}
