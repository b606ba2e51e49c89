package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"sort"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"google/rpc"
	losswire "losswire/v1"
)

// Replays the conformance vectors; the rules are in tests/conformance/README.md.

type tolerance struct {
	Ulps  float64
	Of    string
	Scale float64
}

type resultTolerance struct {
	Loss            tolerance
	Sum             tolerance
	MeanNumerator   tolerance `json:"mean_numerator"`
	MeanDenominator tolerance `json:"mean_denominator"`
	Gradients       map[string]tolerance
}

type vector struct {
	Name       string
	Method     string
	Code       int
	Tolerances []*resultTolerance
}

// facts are the parts of an error that are compared.
type facts struct {
	Code   int32
	Domain string
	Reason string
	Fields []string
}

var mantissaBits = map[string]int{"FLOAT16": 10, "BFLOAT16": 7, "FLOAT32": 23, "FLOAT64": 52}

// replay sends all vectors of a folder and returns the number of wrong answers.
func replay(ctx context.Context, client losswire.LossServiceClient, folder string) (int, error) {
	data, err := os.ReadFile(filepath.Join(folder, "index.json"))
	if err != nil {
		return 0, err
	}
	var index struct{ Vectors []vector }
	if err := json.Unmarshal(data, &index); err != nil {
		return 0, err
	}
	wrong := 0
	for _, each := range index.Vectors {
		problems, err := check(ctx, client, each, filepath.Join(folder, "vectors", each.Name))
		if err != nil {
			problems = append(problems, err.Error())
		}
		for _, problem := range problems {
			fmt.Fprintf(os.Stderr, "%s: %s\n", each.Name, problem)
		}
		if len(problems) > 0 {
			wrong++
		}
	}
	fmt.Printf("%d of %d vectors agree\n", len(index.Vectors)-wrong, len(index.Vectors))
	return wrong, nil
}

func check(
	ctx context.Context, client losswire.LossServiceClient, v vector, stem string,
) ([]string, error) {
	expected, err := os.ReadFile(stem + ".response.binpb")
	if err != nil {
		return nil, err
	}
	var one *losswire.EvaluateResponse
	var several *losswire.EvaluateManyResponse
	var failure error
	if v.Method == "EvaluateMany" {
		request := &losswire.EvaluateManyRequest{}
		if err := load(stem+".request.binpb", request); err != nil {
			return nil, err
		}
		several, failure = client.EvaluateMany(ctx, request)
	} else {
		request := &losswire.EvaluateRequest{}
		if err := load(stem+".request.binpb", request); err != nil {
			return nil, err
		}
		one, failure = client.Evaluate(ctx, request)
	}
	if v.Code != 0 {
		return compareStatuses(failure, expected)
	}
	if failure != nil {
		return nil, failure
	}
	if several == nil {
		want := &losswire.EvaluateResponse{}
		if err := proto.Unmarshal(expected, want); err != nil {
			return nil, err
		}
		return compareResults(one.GetResult(), want.GetResult(), v.Tolerances[0])
	}
	want := &losswire.EvaluateManyResponse{}
	if err := proto.Unmarshal(expected, want); err != nil {
		return nil, err
	}
	if len(several.Outcomes) != len(want.Outcomes) {
		return nil, fmt.Errorf("%d outcomes", len(several.Outcomes))
	}
	var problems []string
	for i, each := range want.Outcomes {
		found, err := compareOutcomes(several.Outcomes[i], each, v.Tolerances[i])
		if err != nil {
			return nil, err
		}
		problems = append(problems, found...)
	}
	return problems, nil
}

func load(path string, message proto.Message) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return proto.Unmarshal(data, message)
}

func compareStatuses(failure error, expected []byte) ([]string, error) {
	var want rpc.Status
	if err := proto.Unmarshal(expected, &want); err != nil {
		return nil, err
	}
	asked := facts{Code: want.GetCode()}
	for _, detail := range want.GetDetails() {
		if err := asked.take(detail.GetTypeUrl(), detail.GetValue()); err != nil {
			return nil, err
		}
	}
	got := status.Convert(failure).Proto()
	told := facts{Code: got.GetCode()}
	for _, detail := range got.GetDetails() {
		if err := told.take(detail.GetTypeUrl(), detail.GetValue()); err != nil {
			return nil, err
		}
	}
	return differ("status", told, asked), nil
}

// take adds the contents of one detail of a status.
func (f *facts) take(typeURL string, value []byte) error {
	switch path.Base(typeURL) {
	case "google.rpc.ErrorInfo":
		var info rpc.ErrorInfo
		if err := proto.Unmarshal(value, &info); err != nil {
			return err
		}
		f.Domain, f.Reason = info.GetDomain(), info.GetReason()
	case "google.rpc.BadRequest":
		var request rpc.BadRequest
		if err := proto.Unmarshal(value, &request); err != nil {
			return err
		}
		fields := map[string]bool{}
		for _, violation := range request.GetFieldViolations() {
			fields[violation.GetField()] = true
		}
		f.Fields = sorted(fields)
	}
	return nil
}

func itemFacts(item *losswire.Status) facts {
	fields := map[string]bool{}
	for _, violation := range item.GetViolations() {
		fields[violation.Field] = true
	}
	return facts{Code: item.GetCode(), Reason: item.GetReason(), Fields: sorted(fields)}
}

func sorted(names map[string]bool) []string {
	var list []string
	for name := range names {
		list = append(list, name)
	}
	sort.Strings(list)
	return list
}

func compareOutcomes(got, want *losswire.EvaluationOutcome, near *resultTolerance) ([]string, error) {
	if near == nil {
		return differ("error", itemFacts(got.GetError()), itemFacts(want.GetError())), nil
	}
	return compareResults(got.GetResult(), want.GetResult(), near)
}

func compareResults(got, want *losswire.EvaluationResult, near *resultTolerance) ([]string, error) {
	problems, err := compareTensors("loss", got.GetLoss(), want.GetLoss(), near.Loss)
	if err != nil {
		return nil, err
	}
	add := func(found ...string) { problems = append(problems, found...) }
	add(compare("sum", got.GetSum(), want.GetSum(), near.Sum)...)
	add(compare("mean_numerator", got.GetMeanNumerator(), want.GetMeanNumerator(), near.MeanNumerator)...)
	add(compare("mean_denominator", got.GetMeanDenominator(), want.GetMeanDenominator(), near.MeanDenominator)...)
	add(differ("count", got.GetCount(), want.GetCount())...)
	add(differ("gradients", names(got), names(want))...)
	for name, gradient := range want.GetGradients() {
		found, err := compareTensors(
			"gradients."+name, got.GetGradients()[name], gradient, near.Gradients[name])
		if err != nil {
			return nil, err
		}
		add(found...)
	}
	told, asked := got.GetReceipt(), want.GetReceipt()
	if asked.GetEngine() != "" {
		add(differ("engine", told.GetEngine(), asked.GetEngine())...)
	}
	add(differ("compute_data_type", told.GetComputeDataType(), asked.GetComputeDataType())...)
	return problems, nil
}

func names(result *losswire.EvaluationResult) []string {
	all := map[string]bool{}
	for name := range result.GetGradients() {
		all[name] = true
	}
	return sorted(all)
}

func compareTensors(name string, got, want *losswire.Tensor, near tolerance) ([]string, error) {
	if got.GetDataType() != want.GetDataType() || !reflect.DeepEqual(got.GetShape(), want.GetShape()) {
		return []string{name + " has another data type or shape"}, nil
	}
	values, err := read(got)
	if err != nil {
		return nil, err
	}
	wanted, err := read(want)
	if err != nil {
		return nil, err
	}
	if len(values) != len(wanted) {
		return []string{fmt.Sprintf("%s has %d elements", name, len(values))}, nil
	}
	var problems []string
	for i := range wanted {
		problems = append(problems, compare(fmt.Sprintf("%s[%d]", name, i), values[i], wanted[i], near)...)
	}
	return problems, nil
}

func compare(name string, got, want float64, near tolerance) []string {
	if near.accepts(got, want) {
		return nil
	}
	return []string{fmt.Sprintf("%s is %.17g; expected %.17g", name, got, want)}
}

func (t tolerance) accepts(got, want float64) bool {
	if math.IsNaN(want) {
		return math.IsNaN(got)
	}
	if math.IsInf(want, 0) || t.Ulps == 0 {
		return got == want
	}
	unit := math.Ldexp(math.Max(math.Abs(want), t.Scale), -mantissaBits[t.Of])
	return math.Abs(got-want) <= t.Ulps*unit
}

func differ(what string, got, want interface{}) []string {
	if reflect.DeepEqual(got, want) {
		return nil
	}
	return []string{fmt.Sprintf("%s is %v; expected %v", what, got, want)}
}
