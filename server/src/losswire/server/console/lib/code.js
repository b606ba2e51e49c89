/** The same evaluation as code in other languages. Every text runs as it is against this server. */
import { ROOT, server } from "./api.js";
import { sizeOf, tensor, toBase64, toNested } from "./tensors.js";

/** The languages that code is written in. */
export const LANGUAGES = ["Python", "curl", "grpcurl", "Go", "TypeScript"];
/** Elements up to which a tensor is written out. */
const MOST = 512;

const unreduced = ({ loss, reduction }) => (reduction || loss.default_reduction) === "none";
const isInteger = (nested) => (Array.isArray(nested) ? nested.every(isInteger) : Number.isInteger(nested));

/** Return the gradient that must be given with unreduced values: ones, in the shape of the values. */
function onesOf(model) {
  if (!unreduced(model) || !model.gradients.length || !model.shape) return null;
  return tensor(new Array(sizeOf(model.shape)).fill(1), model.shape, "float32");
}

/** Write a tensor as JSON: a plain list where the server takes it for the same type. */
function listed(one, types, compute) {
  const nested = toNested(one);
  const taken =
    sizeOf(one.shape) > 0 && isInteger(nested) && types.includes("int64")
      ? "int64"
      : compute === "float64"
        ? "float64"
        : "float32";
  if (sizeOf(one.shape) === 0) return toBase64(one);
  return taken === one.dtype ? nested : { data_type: one.dtype, values: nested };
}

/** Return the body of POST /v1/evaluate, readable. @param {any} model @param {(name: string, one: any) => any} write @returns {any} */
export function requestOf(model, write = null) {
  const typesOf = (name) => model.loss.inputs.find((each) => each.name === name)?.data_types ?? ["float32"];
  const written = write ?? ((name, one) => listed(one, typesOf(name), model.type));
  const request = {
    loss: model.loss.name,
    inputs: Object.fromEntries(Object.entries(model.inputs).map(([name, one]) => [name, written(name, one)])),
  };
  if (Object.keys(model.options).length) request.options = model.options;
  if (model.reduction) request.reduction = model.reduction;
  if (model.gradients.length) request.gradients_for = model.gradients;
  if (onesOf(model)) request.grad_output = written("grad_output", onesOf(model));
  if (model.weight) request.sample_weight = written("sample_weight", model.weight);
  if (model.engine !== "auto") request.engine = model.engine;
  if (model.type) request.compute_data_type = model.type;
  return request;
}

/** Write JSON with one line for each row of numbers. @param {any} value @param {string} indent @returns {string} */
export function pretty(value, indent = "") {
  const flat = JSON.stringify(value);
  if (
    typeof value !== "object" ||
    value === null ||
    flat.length + indent.length < 72 ||
    (Array.isArray(value) && !value.some((each) => typeof each === "object"))
  )
    return flat.replaceAll(",", ", ").replaceAll('":', '": ');
  const inner = `${indent}  `;
  if (Array.isArray(value)) return `[\n${value.map((each) => inner + pretty(each, inner)).join(",\n")}\n${indent}]`;
  return `{\n${Object.entries(value)
    .map(([key, each]) => `${inner}${JSON.stringify(key)}: ${pretty(each, inner)}`)
    .join(",\n")}\n${indent}}`;
}

let listens = ":50051";
server().then(
  (info) => (listens = info.grpc.address || listens),
  () => {},
);
/** Return where gRPC is called: by the name that the page was reached by, with gRPC's own port. */
const target = () => (listens.startsWith("unix:") ? listens : location.hostname + listens.slice(listens.lastIndexOf(":")));
const url = (path) => new URL(path, ROOT).href;
/** Return the tensors that are too large to be written out, by their field. @param {any} model @returns {[string, any][]} */
export const largeOf = (model) =>
  Object.entries({
    ...Object.fromEntries(Object.entries(model.inputs).map(([name, one]) => [`inputs.${name}`, one])),
    ...(model.weight ? { sample_weight: model.weight } : {}),
  }).filter(([, one]) => sizeOf(one.shape) > MOST);

function literal(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  return { NaN: "np.nan", Infinity: "np.inf", "-Infinity": "-np.inf" }[value] ?? JSON.stringify(value);
}

function arrayText(one, name, indent) {
  if (sizeOf(one.shape) > MOST) return `np.load("${name}.npy")`;
  const type = one.dtype === "bfloat16" ? "ml_dtypes.bfloat16" : one.dtype === "bool" ? "np.bool_" : `np.${one.dtype}`;
  if (sizeOf(one.shape) === 0) return `np.zeros((${one.shape.join(", ")},), ${type})`;
  const text = pretty(toNested(one), indent)
    .replace(/"(-?\w+)"/g, (_, word) => literal(word))
    .replaceAll("true", "True")
    .replaceAll("false", "False");
  return `np.array(${text}, ${type})`;
}

function python(model) {
  const { inputs, options, weight } = model;
  const all = [...Object.values(inputs), weight].filter(Boolean);
  const ones = onesOf(model);
  const lines = Object.entries(inputs).map(
    ([name, one]) => `            "${name}": ${arrayText(one, name, "            ")},`,
  );
  const extra = [
    Object.keys(options).length &&
      `{${Object.entries(options)
        .map(([name, value]) => `"${name}": ${literal(value)}`)
        .join(", ")}}`,
    model.reduction && `reduction="${model.reduction}"`,
    model.gradients.length && `gradients=[${model.gradients.map((each) => `"${each}"`).join(", ")}]`,
    ones && `grad_output=np.ones((${ones.shape.join(", ")}${ones.shape.length === 1 ? "," : ""}), np.float32)`,
    weight && `sample_weight=${arrayText(weight, "sample_weight", "        ")}`,
    model.engine !== "auto" && `engine="${model.engine}"`,
    model.type && `compute_dtype="${model.type}"`,
  ]
    .filter(Boolean)
    .map((each) => `        ${each},`);
  return [
    ...(all.some((each) => each.dtype === "bfloat16") ? ["import ml_dtypes"] : []),
    "import numpy as np",
    "",
    "from losswire.client import Client",
    "",
    `with Client("${target()}") as client:  # the server's gRPC address`,
    "    result = client.evaluate(",
    `        "${model.loss.name}",`,
    "        {",
    ...lines,
    "        },",
    ...extra,
    "    )",
    "print(result.loss)",
    ...model.gradients.map((name) => `print(result.gradients["${name}"])`),
    "",
  ].join("\n");
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(model) {
  const large = largeOf(model).map(([path]) => path);
  const command = `curl --silent ${url("v1/evaluate")} \\\n`;
  if (!large.length) {
    const body = quoted(pretty(requestOf(model)));
    return `${command}  --header 'Content-Type: application/json' \\\n  --data ${body}\n`;
  }
  const inputs = Object.fromEntries(Object.entries(model.inputs).filter(([name]) => !large.includes(`inputs.${name}`)));
  const rest = { ...model, inputs, weight: large.includes("sample_weight") ? null : model.weight };
  const request = quoted(`request=${pretty(requestOf(rest))};type=application/json`);
  const files = large.map((path) => `  --form ${path}=@${path.replace("inputs.", "")}.npy`);
  return `${command}  --form ${request} \\\n${files.join(" \\\n")}\n`;
}

function grpcurl(model) {
  const write = (_, one) => ({
    dataType: `DATA_TYPE_${one.dtype.toUpperCase()}`,
    shape: one.shape,
    data: toBase64(one).data,
  });
  const request = requestOf(model, write);
  const kinds = { double: "doubleValue", int64: "int64Value", bool: "boolValue", string: "stringValue" };
  const typed = Object.fromEntries(
    Object.entries(model.options).map(([name, value]) => [
      name,
      { [kinds[model.loss.options.find((each) => each.name === name).type]]: value },
    ]),
  );
  const evaluation = {
    loss: request.loss,
    inputs: request.inputs,
    options: typed,
    gradientsFor: request.gradients_for,
    gradOutput: request.grad_output,
    sampleWeight: request.sample_weight,
    reduction: request.reduction && `REDUCTION_${request.reduction.toUpperCase()}`,
    engine: request.engine && `ENGINE_${request.engine.toUpperCase()}`,
    computeDataType: request.compute_data_type && `DATA_TYPE_${request.compute_data_type.toUpperCase()}`,
  };
  return `grpcurl -plaintext -d ${quoted(pretty({ evaluation: JSON.parse(JSON.stringify(evaluation)) }))} \\\n  ${target()} losswire.v1.LossService/Evaluate\n`;
}

function go(model) {
  return `package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
)

const request = \`${pretty(requestOf(model))}\`

func main() {
	answer, err := http.Post("${url("v1/evaluate")}", "application/json", strings.NewReader(request))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer answer.Body.Close()
	var result struct {
		Loss      any
		Gradients map[string]any
		Detail    string
	}
	if err := json.NewDecoder(answer.Body).Decode(&result); err != nil || answer.StatusCode != http.StatusOK {
		fmt.Fprintln(os.Stderr, answer.Status, result.Detail, err)
		os.Exit(1)
	}
	fmt.Println(result.Loss, result.Gradients)
}
`;
}

function typescript(model) {
  return `type Values = number | string | Values[];

const request = ${pretty(requestOf(model))};

const answer = await fetch("${url("v1/evaluate")}", {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(request),
});
const result = (await answer.json()) as { loss: Values; gradients: Record<string, Values>; detail?: string };
if (!answer.ok) throw new Error(result.detail);
console.log(result.loss, result.gradients);
`;
}

const WRITERS = { Python: python, curl, grpcurl, Go: go, TypeScript: typescript };

/** Return the evaluation as code. @param {string} language one of LANGUAGES @param {any} model @returns {string} */
export function codeOf(language, model) {
  const large = largeOf(model).map(([path]) => path.replace("inputs.", ""));
  if (large.length && !["Python", "curl"].includes(language))
    return `${large.join(" and ")} is too large to be written out here.\nChoose Python or curl, which read it from ${large[0]}.npy.\n`;
  return WRITERS[language](model);
}
